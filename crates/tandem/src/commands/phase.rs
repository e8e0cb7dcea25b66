//! `tandem phase`: shows the state of the migration, and sends orders to the active controller.

use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use serde_json::{Value as Json, json};
use tandem_http_api::problem_type;
use tandem_kafka::http_tls;
use tandem_model::FollowUp;

use crate::cli::phase::{OnOff, PhaseArgs, PhaseCommand};
use crate::config::Config;
use crate::config::secret::Secret;
use crate::remedy;

/// The timeout of a request. The controller answers orders within 20 s.
const DEADLINE: Duration = Duration::from_secs(30);
/// The environment variable that holds the token.
const TOKEN: &str = "TANDEM_CONTROLLER_TOKEN";

/// The answer of a controller.
struct Answer {
    status: u16,
    body: Json,
}

/// The addresses of the controllers, and the token.
struct Client {
    urls: Vec<String>,
    token: Option<String>,
    agent: ureq::Agent,
}

/// Sends the request and prints the answer. Returns status 1 if the controller refuses.
pub(crate) async fn run(command: PhaseCommand) -> Result<ExitCode> {
    tokio::task::spawn_blocking(move || execute(&command)).await.context("asking the controller")?
}

fn execute(command: &PhaseCommand) -> Result<ExitCode> {
    let (args, method, path, body) = match command {
        PhaseCommand::Status(args) => (args, "GET", "phase", None),
        PhaseCommand::History(args) => (args, "GET", "history", None),
        PhaseCommand::Advance(order) => {
            (&order.args, "POST", "phase/advance", Some(json!({"reason": order.reason})))
        }
        PhaseCommand::Back(order) => {
            (&order.args, "POST", "phase/back", Some(json!({"reason": order.reason})))
        }
        PhaseCommand::Pause(order) => {
            (&order.args, "POST", "phase/pause", Some(json!({"reason": order.reason})))
        }
        PhaseCommand::Resume(order) => {
            (&order.args, "POST", "phase/resume", Some(json!({"reason": order.reason})))
        }
        PhaseCommand::Auto { on, order } => {
            let body = json!({"reason": order.reason, "on": matches!(on, OnOff::On)});
            (&order.args, "POST", "phase/auto", Some(body))
        }
    };
    let answer = Client::new(args)?.ask(method, path, body.as_ref())?;
    if answer.status != 200 {
        if args.json.json {
            println!("{}", serde_json::to_string_pretty(&answer.body)?);
        } else {
            eprintln!("error: {}", refusal(&answer));
        }
        return Ok(ExitCode::FAILURE);
    }
    if args.json.json {
        println!("{}", serde_json::to_string_pretty(&answer.body)?);
    } else if let PhaseCommand::History(_) = command {
        print_history(&answer.body);
    } else {
        print_phase(&answer.body);
    }
    Ok(ExitCode::SUCCESS)
}

impl Client {
    fn new(args: &PhaseArgs) -> Result<Self> {
        let config = Config::load(&args.config.config)?;
        let section = config.controller_section();
        let urls = if args.url.is_empty() { section.urls() } else { args.url.clone() };
        let token = match &args.token {
            Some(stage) => Some(Secret::at(stage).reveal().context("--token")?),
            None => std::env::var(TOKEN).ok(),
        };
        let open = urls.iter().find(|url| token.is_some() && !section.insecure() && can_be_read(url));
        if let Some(url) = open {
            bail!(
                "the token would be sent to {url} without TLS, where others can read it: use an https:// address, or \
                 set controller.insecure = true"
            );
        }
        let (ca, name) = match &args.ca {
            Some(ca) => (Some(ca.as_path()), "--ca"),
            None => (section.ca(), "controller.ca"),
        };
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(DEADLINE))
            .http_status_as_error(false)
            .tls_config(http_tls(ca, name)?);
        Ok(Self { urls, token, agent: agent.build().into() })
    }

    /// The answer of the active controller. Standbys and unreachable controllers are skipped. If no other controller
    /// answers, this returns the last of their answers.
    fn ask(&self, method: &str, path: &str, body: Option<&Json>) -> Result<Answer> {
        let mut passed_by: Option<Result<Answer>> = None;
        for url in &self.urls {
            let url = format!("{}/v1/{path}", url.trim_end_matches('/'));
            match self.ask_one(method, &url, body) {
                Ok(answer) if is_standby(&answer) => passed_by = Some(Ok(answer)),
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    if !matches!(passed_by, Some(Ok(_))) {
                        passed_by = Some(Err(error));
                    }
                }
            }
        }
        passed_by.unwrap_or_else(|| bail!("no controller is configured: set controller.urls, or give --url"))
    }

    fn ask_one(&self, method: &str, url: &str, body: Option<&Json>) -> Result<Answer> {
        let mut request = ureq::http::Request::builder().method(method).uri(url);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = body.map(ToString::to_string).unwrap_or_default();
        let request = request.body(body).context("the request")?;
        let mut answer = self.agent.run(request).with_context(|| {
            let ca = if url.starts_with("https://") { "; controller.ca or --ca names its CA" } else { "" };
            format!("the controller did not answer at {url} (is `tandem controller` running there?{ca})")
        })?;
        let status = answer.status().as_u16();
        let text = answer.body_mut().read_to_string().with_context(|| format!("the answer of {url}"))?;
        let body = serde_json::from_str(&text)
            .with_context(|| format!("{url} answered {status}, but not with the JSON of a controller"))?;
        Ok(Answer { status, body })
    }
}

/// Whether a request to this address can be read on the way.
fn can_be_read(url: &str) -> bool {
    let uri = url.parse::<ureq::http::Uri>();
    let host = uri.as_ref().ok().and_then(ureq::http::Uri::host).unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    !url.starts_with("https://") && host != "localhost" && !address.is_ok_and(|ip| ip.is_loopback())
}

fn is_standby(answer: &Answer) -> bool {
    answer.body["type"] == problem_type(tandem_controller::STANDBY)
}

fn text(json: &Json) -> String {
    match json {
        Json::String(text) => text.clone(),
        Json::Null => String::new(),
        other => other.to_string(),
    }
}

fn list(json: &Json) -> &[Json] {
    json.as_array().map_or(&[], Vec::as_slice)
}

/// Measurements that exist only after a command has run.
const NEEDED: [(&str, FollowUp); 2] =
    [("full_scan_age_seconds", FollowUp::FullVerification), ("full_scan_clean", FollowUp::FullVerification)];

fn hint(needed: FollowUp) -> String {
    format!(": run {}", remedy::command(needed))
}

/// The text of a refusal, with one line for each obstacle.
fn refusal(answer: &Answer) -> String {
    let obstacles = list(&answer.body["obstacles"]);
    if obstacles.is_empty() {
        return format!("{}: {}", text(&answer.body["title"]), text(&answer.body["detail"]));
    }
    let lines = obstacles.iter().map(|o| {
        let detail = text(&o["detail"]);
        let command = NEEDED.iter().find(|(name, _)| detail.contains(&format!("{name} is not measured")));
        format!("\n  {detail}{}", command.map_or_else(String::new, |(_, needed)| hint(*needed)))
    });
    format!("{}:{}", text(&answer.body["title"]), lines.collect::<String>())
}

fn stage(json: &Json) -> String {
    match json["phase"].as_str() {
        Some("canary") => format!("canary at {} %", json["percent"]),
        Some(phase) => phase.to_owned(),
        None => "none".to_owned(),
    }
}

fn print_phase(phase: &Json) {
    println!("phase:      {} (generation {})", stage(phase), phase["generation"]);
    if let Some(since) = phase["since"].as_str() {
        println!("since:      {since}, by {}: {}", text(&phase["by"]), text(&phase["reason"]));
    }
    let held = phase["held_seconds"].as_f64().unwrap_or_default();
    println!("held:       {held:.1} s of {} s", phase["soak_seconds"]);
    let mode = match (phase["paused"].as_bool(), phase["auto"].as_bool()) {
        (Some(true), _) => "paused: no transition is made",
        (_, Some(true)) => "auto: advances once every gate is met",
        _ => "manual: advances on an order",
    };
    println!("mode:       {mode}");
    println!("next:       {}", stage(&phase["next"]));
    for gateway in list(&phase["gateways"]) {
        let (name, generation) = (text(&gateway["name"]), &gateway["generation"]);
        let silent = match gateway["silent_seconds"].as_u64() {
            Some(seconds) => {
                format!(", silent for {seconds} s (gone for good? `tandem gateways forget {name}`)")
            }
            None => String::new(),
        };
        println!("gateway:    {name}, acts on generation {generation}{silent}");
    }
    let mut table = comfy_table::Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY);
    table.set_header(["", "condition", "", "numbers"]);
    for (kind, gates, yes, no) in
        [("gate", &phase["gates"], "met", "UNMET"), ("rollback", &phase["rollback"], "TRUE", "no")]
    {
        for gate in list(gates) {
            table.add_row([
                format!("{kind} {}", text(&gate["name"])),
                text(&gate["expression"]),
                if gate["met"] == true { yes.to_owned() } else { no.to_owned() },
                numbers(gate),
            ]);
        }
    }
    println!("{table}");
}

fn numbers(gate: &Json) -> String {
    let of = |key: &str| gate[key].as_object().cloned().unwrap_or_default();
    let measured = of("numbers").into_iter().map(|(name, value)| format!("{name} = {}", text(&value)));
    let not = of("unmeasured").into_iter().map(|(name, reason)| {
        let command = NEEDED.iter().find(|(needed, _)| *needed == name);
        let hint = command.map_or_else(String::new, |(_, needed)| hint(*needed));
        format!("{name} not measured: {}{hint}", text(&reason))
    });
    measured.chain(not).collect::<Vec<_>>().join("\n")
}

fn print_history(history: &Json) {
    let mut table = comfy_table::Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY);
    table.set_header(["generation", "at", "action", "phase", "by", "reason"]);
    for entry in list(&history["history"]) {
        table.add_row([
            entry["generation"].to_string(),
            text(&entry["at"]),
            text(&entry["action"]),
            stage(entry),
            text(&entry["by"]),
            text(&entry["reason"]),
        ]);
    }
    println!("{table}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_to_other_machines_without_tls_can_be_read() {
        for url in
            ["http://10.0.0.1:9465", "http://localhost.example:1", "http://[2001:db8::1]:1", "no url", ""]
        {
            assert!(can_be_read(url), "{url}");
        }
        for url in ["https://10.0.0.1:9465", "http://127.0.0.1:1", "http://[::1]:1/", "http://localhost:9465"]
        {
            assert!(!can_be_read(url), "{url}");
        }
    }
}
