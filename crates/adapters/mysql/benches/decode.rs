//! Measures how fast the rows of a recorded binlog are decoded in memory.
//!
//! `cargo xtask bench decode` records the files and runs this benchmark. The arguments are the files
//! and `--json FILE`. The benchmark measures five variants:
//!
//! - `walk`: parses every event header and copies the event's bytes into one buffer. This is the upper limit.
//! - `raw`: the raw stream as mysql_async delivers it. mysql_common's `EventStreamReader` parses the
//!   header, copies the body into its own memory and keeps the table maps.
//! - `rows`: `raw`, then mysql_common's `rows()` into values.
//! - `tandem`: from the bytes to the Avro encoding of the key and the row images.
//! - `stream`: what capture does. It reads mysql_async's raw stream, verifies the checksums and continues as
//!   `tandem`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mysql_common::binlog::EventStreamReader;
use mysql_common::binlog::consts::BinlogVersion;
use mysql_common::binlog::events::{Event, EventData};
use serde_json::json;
use tandem_binlog::{BinlogEvent, EventDecoder};

/// The length and the number of rounds for each variant. The fastest round counts, because other load on
/// the machine only slows a round down.
const ROUND: Duration = Duration::from_millis(700);
const ROUNDS: usize = 5;

/// The first bytes of a binlog file.
const MAGIC: &[u8] = b"\xfebin";
const HEADER: usize = 19;
const CHECKSUM: usize = 4;

fn main() -> Result<()> {
    let (mut files, mut json_file) = (Vec::new(), None);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--json" => json_file = Some(args.next().context("--json needs a file")?),
            // `cargo bench` passes it.
            "--bench" => {}
            _ => files.push(arg),
        }
    }
    if files.is_empty() {
        println!("no recorded binlog was named: run `cargo xtask bench decode`");
        return Ok(());
    }
    let mut report = serde_json::Map::new();
    for file in files {
        let name = std::path::Path::new(&file).file_stem().and_then(|s| s.to_str()).unwrap_or("binlog");
        let bytes = std::fs::read(&file).with_context(|| format!("read {file}"))?;
        report.insert(name.to_owned(), measure(name, &bytes)?);
    }
    if let Some(file) = json_file {
        std::fs::write(&file, serde_json::to_string_pretty(&report)? + "\n")
            .with_context(|| format!("write {file}"))?;
    }
    Ok(())
}

fn measure(name: &str, bytes: &[u8]) -> Result<serde_json::Value> {
    let log = bytes.strip_prefix(MAGIC).context("the file is not a binlog")?;
    let rows = tandem(log)?;
    for (way, found) in [("rows", driver_rows(log)?), ("stream", stream(log)?)] {
        if found != rows {
            bail!("`{way}` finds {found} rows, `tandem` {rows}");
        }
    }
    println!("{name}: {rows} rows, {} bytes of binlog a row", log.len() as u64 / rows.max(1));
    let rate = |run: &dyn Fn(&[u8]) -> Result<u64>| -> Result<f64> {
        let mut best = 0.0_f64;
        for _ in 0..ROUNDS {
            let (start, mut passes) = (Instant::now(), 0u32);
            while start.elapsed() < ROUND {
                black_box(run(black_box(log))?);
                passes += 1;
            }
            best = best.max(f64::from(passes) * rows as f64 / start.elapsed().as_secs_f64());
        }
        Ok(best)
    };
    let rates = [
        ("walk", rate(&|log| Ok(walk(log)))?),
        ("raw", rate(&raw)?),
        ("rows", rate(&driver_rows)?),
        ("tandem", rate(&tandem)?),
        ("stream", rate(&stream)?),
    ];
    for (way, rate) in rates {
        println!("  {way:8} {rate:12.0} rows/s  {:8.0} ns a row", 1e9 / rate);
    }
    let [walk, raw, rows_rate, tandem, stream] = rates.map(|(_, rate)| rate);
    let (peer, of_raw) = (tandem / rows_rate, tandem / raw);
    println!("  tandem is {peer:.1} × mysql_common's rows(), {of_raw:.2} of the raw stream");
    Ok(json!({
        "rows": rows,
        "binlog_bytes": log.len(),
        "rows_per_s": {
            "walk": walk.round(), "raw": raw.round(), "mysql_common": rows_rate.round(),
            "tandem": tandem.round(), "stream": stream.round(),
        },
        "ratio_mysql_common": peer,
        "ratio_raw": of_raw,
        "ratio_walk": tandem / walk,
    }))
}

/// The events of a log, with their checksums.
fn events(log: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = log;
    std::iter::from_fn(move || {
        let size = u32::from_le_bytes(*rest.get(9..)?.first_chunk()?) as usize;
        let (event, left) = rest.split_at_checked(size.max(HEADER + CHECKSUM))?;
        rest = left;
        Some(event)
    })
}

fn walk(log: &[u8]) -> u64 {
    let mut buffer = Vec::new();
    let mut seen = 0;
    for event in events(log) {
        buffer.clear();
        buffer.extend_from_slice(event);
        seen += u64::from(black_box(&buffer)[4] == 30);
    }
    seen
}

fn raw(log: &[u8]) -> Result<u64> {
    let mut seen = 0;
    each_event(log, |_, event| {
        black_box(event.data());
        seen += 1;
        Ok(())
    })?;
    Ok(seen)
}

fn driver_rows(log: &[u8]) -> Result<u64> {
    let mut seen = 0;
    each_event(log, |reader, event| {
        let Some(EventData::RowsEvent(data)) = event.read_data()? else { return Ok(()) };
        let table = reader.get_tme(data.table_id()).context("rows of a table that is not mapped")?;
        for row in data.rows(table) {
            let (before, after) = row?;
            black_box(before.map(mysql_common::binlog::row::BinlogRow::unwrap));
            black_box(after.map(mysql_common::binlog::row::BinlogRow::unwrap));
            seen += 1;
        }
        Ok(())
    })?;
    Ok(seen)
}

fn each_event(mut log: &[u8], mut each: impl FnMut(&EventStreamReader, &Event) -> Result<()>) -> Result<()> {
    let mut reader = EventStreamReader::new(BinlogVersion::Version4);
    while let Some(event) = reader.read(&mut log)? {
        each(&reader, &event)?;
    }
    Ok(())
}

fn decoder() -> EventDecoder {
    let collations = [(8, "latin1"), (63, "binary"), (255, "utf8mb4")];
    EventDecoder::new(collations.map(|(id, name)| (id, name.to_owned())), |table| table.table == "invoices")
}

fn rows_of(event: Option<BinlogEvent>) -> u64 {
    match black_box(event) {
        Some(BinlogEvent::Rows(rows)) => rows.rows().inspect(|images| _ = black_box(images)).count() as u64,
        _ => 0,
    }
}

fn tandem(log: &[u8]) -> Result<u64> {
    let (mut decoder, mut seen) = (decoder(), 0);
    for event in events(log) {
        seen += rows_of(decoder.feed(&event[..event.len() - CHECKSUM])?);
    }
    Ok(seen)
}

fn stream(log: &[u8]) -> Result<u64> {
    let (mut decoder, mut seen, mut bytes) = (decoder(), 0, events(log));
    each_event(log, |_, event| {
        if let (Some(checksum), Ok(Some(algorithm))) = (event.checksum(), event.footer().get_checksum_alg())
            && event.calc_checksum(algorithm).to_le_bytes() != checksum
        {
            bail!("a checksum is wrong");
        }
        black_box(event.data());
        let bytes = bytes.next().context("the driver returned more events than the file holds")?;
        seen += rows_of(decoder.feed(&bytes[..bytes.len() - CHECKSUM])?);
        Ok(())
    })?;
    Ok(seen)
}
