//! Prints the status for people.

use std::cmp::Reverse;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;

use super::processes::ProcessStatus;
use super::report::{Status, TableStatus, TopicStatus};
use super::statements::Statement;

/// With more tables or topics than this, only those that are not in order are printed.
const FEW: usize = 20;

/// Prints the status. `all` prints every table and topic.
pub(super) fn print(status: &Status, all: bool) {
    match &status.source {
        None => println!("capture has not begun"),
        Some(s) => println!(
            "captured up to {} ({}:{}), {:.1} s ago",
            short(&s.gtid_set, all),
            s.file,
            s.position,
            s.watermark_age_seconds
        ),
    }
    if let Some(mapping) = &status.mapping {
        let here = if mapping.in_use { "this tandem.toml's" } else { "not this tandem.toml's" };
        println!(
            "mapping: generation {}, {here}, {} apply processes",
            mapping.generation,
            mapping.applies.len()
        );
    }
    let totals = &status.totals;
    println!(
        "{} of {} tables copied, {} of about {} rows",
        totals.copied_tables, totals.tables, totals.copied_rows, totals.estimated_rows
    );
    tables(&status.tables, all);
    topics(&status.topics, all);
    let seconds = status.lag.seconds.map_or("unknown".to_owned(), |s| format!("{s:.1} s"));
    println!("lag: {} records, {seconds}", status.lag.records);
    let m = &status.mismatches;
    println!(
        "mismatches: {} found, {} resolved, {} unrepairable, {} open",
        m.found, m.resolved, m.unrepairable, m.open
    );
    println!("dead letters: {} open", status.dead_letters);
    if let Some(reverse) = &status.reverse {
        println!(
            "reverse: {} records behind, {} dead letters open",
            reverse.lag_records, reverse.dead_letters
        );
    }
    processes(&status.processes);
    let seconds = status.lag.seconds.unwrap_or_default();
    let caught_up = format!("caught up: every change up to {seconds:.1} s ago is in Cassandra");
    statement(&status.caught_up, &caught_up, "not caught up");
    statement(&status.copied, "copied: every row of every table is in Cassandra", "not copied");
    let v = &status.verified;
    let as_of = v.as_of.as_deref().unwrap_or_default();
    let verified = format!("verified as of {as_of}: both stores agreed, {} rows were checked", v.rows);
    statement(&v.statement, &verified, "not verified");
}

fn statement(statement: &Statement, holds: &str, not: &str) {
    if statement.holds {
        println!("{holds}");
    } else {
        println!("{not}: {}", statement.why_not.join("; "));
    }
}

fn processes(all: &[ProcessStatus]) {
    if all.is_empty() {
        println!("no process has reported: `tandem run` starts one");
        return;
    }
    let mut table = comfy_table::Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY);
    table.set_header(["process", "version", "role", "state", "since"]);
    for process in all {
        for role in &process.roles {
            let (name, version) = (process.name.clone(), process.version.clone());
            table.add_row([name, version, role.role.clone(), role.state.clone(), ago(role.since_seconds)]);
        }
    }
    println!("{table}");
    for process in all {
        for role in process.roles.iter().filter(|role| role.state == "down") {
            println!("{} of {} is down since {}", role.role, process.name, ago(role.since_seconds));
            cause(&role.cause, role.next_try_seconds);
        }
        for wait in &process.waits {
            println!("{} waits, {}, since {}", process.name, wait.what, ago(wait.since_seconds));
            cause(&wait.cause, wait.next_try_seconds);
        }
        if process.silent {
            println!(
                "{} has said nothing since {}: it was killed, or does not reach Kafka",
                process.name,
                ago(process.said_seconds_ago)
            );
        }
    }
}

fn cause(cause: &str, next_try: Option<f64>) {
    println!("  cause: {cause}");
    if let Some(seconds) = next_try {
        println!("  next try: in {seconds:.0} s");
    }
}

/// A length of time, in its largest unit.
fn ago(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3_600.0),
        s => format!("{:.0} d", s / 86_400.0),
    }
}

/// Those that are not in order, the worst ones first, if there are many.
fn chosen<T, K: Ord>(
    all: &[T],
    every: bool,
    in_order: impl Fn(&T) -> bool,
    worst: impl Fn(&T) -> K,
) -> Vec<&T> {
    if every || all.len() <= FEW {
        return all.iter().collect();
    }
    let mut chosen: Vec<&T> = all.iter().filter(|one| !in_order(one)).collect();
    chosen.sort_by_key(|one| Reverse(worst(one)));
    chosen.truncate(FEW);
    chosen
}

fn tables(all: &[TableStatus], every: bool) {
    let lag = |t: &TableStatus| t.lag_records.unwrap_or(0);
    let left = |t: &TableStatus| t.backfill.expected() - t.backfill.rows;
    let live = |t: &TableStatus| t.not_live.is_none();
    let in_order = |t: &TableStatus| live(t) && t.backfill.applied && lag(t) == 0 && t.dead_letters == 0;
    let chosen = chosen(all, every, in_order, |t| (!live(t), t.dead_letters, left(t), lag(t)));
    let mut table = comfy_table::Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY);
    table.set_header(["table", "state", "backfill", "change topic", "lag", "dead letters"]);
    for t in &chosen {
        let backfill = match &t.backfill {
            b if b.applied => format!("{} rows, applied", b.rows),
            b if b.done => format!("{} rows, published", b.rows),
            b if b.estimated_rows == 0 => "not begun".to_owned(),
            b => format!("{} of about {} rows", b.rows, b.expected()),
        };
        let lag = t.lag_records.map_or("not counted".to_owned(), |records| records.to_string());
        let (name, state, topic) = (t.name.clone(), t.state.to_owned(), t.topic.clone());
        table.add_row([name, state, backfill, topic, lag, t.dead_letters.to_string()]);
    }
    print_some(&table, chosen.len(), all.len(), "tables");
    for t in &chosen {
        if let Some(why) = &t.not_live {
            println!(
                "{} is {} for {:.0} s: {} (by {})",
                t.name, t.state, why.since_seconds, why.reason, why.by
            );
            if !why.cause.is_empty() {
                println!("  cause: {}", why.cause);
            }
            println!("  what leads on: {}", why.remedy);
        }
    }
}

fn topics(all: &[TopicStatus], every: bool) {
    let chosen = chosen(all, every, |t| t.lag_records == 0, |t| t.lag_records);
    let mut table = comfy_table::Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY);
    table.set_header(["topic", "published", "applied", "lag"]);
    for t in &chosen {
        table.add_row([
            t.name.clone(),
            t.published.to_string(),
            t.applied.to_string(),
            t.lag_records.to_string(),
        ]);
    }
    print_some(&table, chosen.len(), all.len(), "topics");
}

fn print_some(table: &comfy_table::Table, shown: usize, all: usize, what: &str) {
    if shown > 0 {
        println!("{table}");
    }
    if shown < all {
        println!("{} more {what} are not shown: --all shows every one", all - shown);
    }
}

/// A GTID set in one line.
fn short(gtid_set: &str, all: bool) -> String {
    const LONGEST: usize = 200;
    match gtid_set.char_indices().nth(LONGEST) {
        Some((end, _)) if !all => format!("{}… ({} characters)", &gtid_set[..end], gtid_set.len()),
        _ => gtid_set.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_only_those_out_of_order_are_chosen_the_worst_first() {
        let few: Vec<u32> = (0..20).collect();
        assert_eq!(chosen(&few, false, |_| true, |n| *n).len(), 20);
        let many: Vec<u32> = (0..100).collect();
        assert_eq!(chosen(&many, false, |n| n % 40 != 1, |n| *n), [&81, &41, &1]);
        assert_eq!(chosen(&many, false, |_| false, |n| *n).len(), FEW);
        assert_eq!(chosen(&many, true, |_| true, |n| *n).len(), 100);
    }

    #[test]
    fn a_length_of_time_has_one_unit() {
        let spans = [0.4, 119.0, 130.0, 7_300.0, 259_200.0].map(ago);
        assert_eq!(spans, ["0 s", "119 s", "2 min", "2 h", "3 d"]);
    }

    #[test]
    fn a_long_gtid_set_is_cut_between_characters() {
        assert_eq!(short("a:1-5", false), "a:1-5");
        let long = "ü".repeat(300);
        assert!(short(&long, false).starts_with(&"ü".repeat(200)) && short(&long, false).len() < 450);
        assert_eq!(short(&long, true), long);
    }
}
