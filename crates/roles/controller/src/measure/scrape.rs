//! Scrapes metrics pages over HTTP.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::measure::counters::{MetricNames, Page};

/// The timeout of one page.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The largest page, in bytes.
const MAX_PAGE: u64 = 8 << 20;

/// Reads all pages concurrently. The result is keyed by address.
pub(crate) async fn scrape(
    addresses: &[String],
    names: &MetricNames,
) -> BTreeMap<String, Result<Page, String>> {
    let reading: Vec<_> = addresses
        .iter()
        .map(|address| {
            let url = address.clone();
            (address, tokio::task::spawn_blocking(move || get(&url)))
        })
        .collect();
    let mut pages = BTreeMap::new();
    for (address, read) in reading {
        let page = read.await.unwrap_or_else(|_| Err("reading it failed".to_owned()));
        pages.insert(address.clone(), page.and_then(|text| names.read(&text)));
    }
    pages
}

fn get(url: &str) -> Result<String, String> {
    let config = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).max_redirects(0);
    let mut answer = ureq::Agent::from(config.build()).get(url).call().map_err(|error| error.to_string())?;
    answer.body_mut().with_config().limit(MAX_PAGE).read_to_string().map_err(|error| error.to_string())
}
