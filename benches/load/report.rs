//! What is printed, and drawn.

use serde::Serialize;
use serde_json::{Value, json};

use crate::cells::Measured;
use crate::floor::Floor;
use crate::options::Options;
use crate::plot::{self, Bar};

/// One object on a line of its own.
pub(crate) fn line(kind: &str, setting: &Value, of: &impl Serialize) {
    let mut line = serde_json::to_value(of).expect("json");
    line["kind"] = kind.into();
    for (key, value) in setting.as_object().into_iter().flatten() {
        line[key] = value.clone();
    }
    println!("{line}");
}

/// The middle of several rounds, with the least and the most.
pub(crate) fn spread(values: impl IntoIterator<Item = f64>) -> (f64, f64, f64) {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.get(values.len() / 2).copied().unwrap_or(f64::NAN);
    let (least, most) = (values.first(), values.last());
    (
        middle,
        least.copied().unwrap_or(middle),
        most.copied().unwrap_or(middle),
    )
}

/// Of all rounds of one cell.
fn of_cell<'a>(
    cells: &'a [Measured],
    server: &'a str,
    (encrypted, paid): (bool, bool),
    value: impl Fn(&Measured) -> f64 + 'a,
) -> Option<(f64, f64, f64)> {
    let mut found = cells
        .iter()
        .filter(|m| m.cell.server == server && m.cell.encrypted == encrypted && m.cell.paid == paid)
        .peekable();
    found.peek()?;
    Some(spread(found.map(value)))
}

fn named(encrypted: bool, paid: bool) -> String {
    let how = if encrypted { "encrypted" } else { "plaintext" };
    let what = if paid { "paid" } else { "free" };
    format!("{what}, {how}")
}

/// Ratios against the SDK and against the floor, and plots.
pub(crate) fn comparison(options: &Options, floors: &[Floor], cells: &[Measured]) {
    let loads = [(false, true), (true, true), (false, false), (true, false)];
    let (mut cpu, mut rate) = (Vec::new(), Vec::new());
    for (encrypted, paid) in loads {
        for (colour, server) in options.servers.iter().enumerate() {
            let of = |value: fn(&Measured) -> f64| of_cell(cells, server, (encrypted, paid), value);
            let (Some(us), Some(calls)) = (of(|m| m.server_us), of(|m| m.calls_per_s)) else {
                continue;
            };
            let label = format!("{}: {server}", named(encrypted, paid));
            cpu.push(Bar {
                label: label.clone(),
                value: us.0,
                colour,
            });
            rate.push(Bar {
                label,
                value: calls.0,
                colour,
            });
        }
        if paid {
            let least = spread(floors.iter().map(|floor| floor.paid(encrypted)));
            cpu.push(Bar {
                label: format!("{}: floor", named(encrypted, paid)),
                value: least.0,
                colour: 5,
            });
        }
        let ours = of_cell(cells, "library", (encrypted, paid), |m| m.server_us);
        let our_rate = of_cell(cells, "library", (encrypted, paid), |m| m.calls_per_s);
        for theirs in ["node", "bun"] {
            let (Some(ours), Some(our_rate), Some(us), Some(calls)) = (
                ours,
                our_rate,
                of_cell(cells, theirs, (encrypted, paid), |m| m.server_us),
                of_cell(cells, theirs, (encrypted, paid), |m| m.calls_per_s),
            ) else {
                continue;
            };
            let ratio = json!({
                "against": theirs, "encrypted": encrypted, "paid": paid,
                "cpu_times_fewer": us.0 / ours.0, "calls_times_more": our_rate.0 / calls.0,
            });
            line("ratio", &options.setting(), &ratio);
        }
        if let (Some(ours), true) = (ours, paid) {
            let least = spread(floors.iter().map(|floor| floor.paid(encrypted)));
            let ratio = json!({ "against": "floor", "encrypted": encrypted, "cpu_times": ours.0 / least.0 });
            line("ratio", &options.setting(), &ratio);
        }
    }
    save(
        options,
        "load_cpu.svg",
        &plot::bars(
            "Server CPU per call, 32 in flight (logarithmic)",
            "µs",
            &cpu,
        ),
    );
    save(
        options,
        "load_rate.svg",
        &plot::bars("Calls per second, 32 in flight (logarithmic)", "/s", &rate),
    );
}

/// What of the throughput is left when every step is flushed.
pub(crate) fn durability(options: &Options, cells: &[Measured]) {
    let pairs = cells.chunks_exact(2);
    let left = spread(pairs.map(|pair| pair[1].calls_per_s / pair[0].calls_per_s));
    let of = |server: &str, value: fn(&Measured) -> f64| {
        of_cell(cells, server, (false, true), value).unwrap_or_default()
    };
    let summary = json!({
        "left": left.0, "left_least": left.1, "left_most": left.2,
        "memory_per_s": of("library", |m| m.calls_per_s).0,
        "sqlite_per_s": of("library-sqlite", |m| m.calls_per_s).0,
        "memory_us": of("library", |m| m.server_us).0,
        "sqlite_us": of("library-sqlite", |m| m.server_us).0,
    });
    line("durability", &options.setting(), &summary);
}

/// Writes a file where the plots go, if they go anywhere.
pub(crate) fn save(options: &Options, name: &str, text: &str) {
    if let Some(folder) = &options.out {
        std::fs::create_dir_all(folder).expect("a folder");
        std::fs::write(folder.join(name), text).expect("written");
    }
}
