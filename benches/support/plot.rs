//! Plots as SVG, written by hand: bars beside each other, and lines over a logarithmic axis.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const COLOURS: [&str; 6] = [
    "#1b6ca8", "#d1495b", "#66a182", "#edae49", "#6d597a", "#8d99ae",
];

/// A bar with its label and the text at its end.
#[derive(Debug, Clone)]
pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) value: f64,
    /// Which bars belong together.
    pub(crate) colour: usize,
}

/// A line through points, and how it is called.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) label: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Horizontal bars on a logarithmic scale, because they are factors apart.
#[allow(dead_code, reason = "not every bench draws both")]
pub(crate) fn bars(title: &str, unit: &str, bars: &[Bar]) -> String {
    const LEFT: f64 = 270.0;
    let height = 50.0 + 22.0 * bars.len() as f64;
    let mut svg = head(title, height);
    let values = || bars.iter().map(|bar| bar.value.max(1e-9));
    let least = values().fold(f64::INFINITY, f64::min) / 2.0;
    let most = values().fold(0.0, f64::max);
    let scale = (WIDTH - LEFT - 110.0) / (most / least).ln().max(0.1);
    for (row, bar) in bars.iter().enumerate() {
        let y = 40.0 + 22.0 * row as f64;
        let width = scale * (bar.value.max(1e-9) / least).ln();
        let colour = COLOURS[bar.colour % COLOURS.len()];
        let _ = writeln!(
            svg,
            r#"<text x="{}" y="{}" text-anchor="end">{}</text><rect x="{LEFT}" y="{y}" width="{width:.0}" height="16" fill="{colour}"/><text x="{:.0}" y="{}">{} {unit}</text>"#,
            LEFT - 8.0,
            y + 12.0,
            escaped(&bar.label),
            LEFT + width + 6.0,
            y + 12.0,
            short(bar.value)
        );
    }
    svg + "</svg>\n"
}

/// Lines over a logarithmic horizontal axis; the vertical one begins at zero, so that flat looks flat.
#[allow(dead_code, reason = "not every bench draws both")]
pub(crate) fn lines(title: &str, x: &str, y: &str, lines: &[Line]) -> String {
    const LEFT: f64 = 70.0;
    const TOP: f64 = 40.0;
    const RIGHT: f64 = 20.0;
    const HEIGHT: f64 = 250.0;
    let mut svg = head(title, TOP + HEIGHT + 60.0 + 18.0 * lines.len() as f64);
    let points = || lines.iter().flat_map(|line| line.points.iter());
    let most = points().map(|(_, y)| *y).fold(0.0, f64::max) * 1.15;
    // Nothing at all is a place on the axis too: one step before one.
    let place = |x: f64| if x < 1.0 { -0.5 } else { x.log10() };
    let least_x = points()
        .map(|(x, _)| place(*x))
        .fold(f64::INFINITY, f64::min);
    let most_x = points()
        .map(|(x, _)| place(*x))
        .fold(f64::NEG_INFINITY, f64::max);
    let at_x =
        |x: f64| LEFT + (WIDTH - LEFT - RIGHT) * (place(x) - least_x) / (most_x - least_x).max(0.1);
    let at_y = |y: f64| TOP + HEIGHT * (1.0 - y / most.max(1e-9));
    for step in 0..=4 {
        let value = most * f64::from(step) / 4.0;
        let _ = writeln!(
            svg,
            r##"<line x1="{LEFT}" x2="{}" y1="{y:.0}" y2="{y:.0}" stroke="#ddd"/><text x="{}" y="{:.0}" text-anchor="end">{}</text>"##,
            WIDTH - RIGHT,
            LEFT - 6.0,
            at_y(value) + 4.0,
            short(value),
            y = at_y(value),
        );
    }
    let mut ticks: Vec<f64> = points().map(|(x, _)| *x).collect();
    ticks.sort_by(f64::total_cmp);
    ticks.dedup();
    for tick in ticks {
        let _ = writeln!(
            svg,
            r#"<text x="{:.0}" y="{}" text-anchor="middle">{}</text>"#,
            at_x(tick),
            TOP + HEIGHT + 16.0,
            short(tick)
        );
    }
    let _ = writeln!(
        svg,
        r#"<text x="{}" y="{}" text-anchor="middle">{}</text><text x="{LEFT}" y="{}">{}</text>"#,
        f64::midpoint(LEFT, WIDTH),
        TOP + HEIGHT + 34.0,
        escaped(x),
        TOP - 4.0,
        escaped(y)
    );
    for (number, line) in lines.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let path: Vec<String> = line
            .points
            .iter()
            .map(|(x, y)| format!("{:.0},{:.0}", at_x(*x), at_y(*y)))
            .collect();
        let below = TOP + HEIGHT + 54.0 + 18.0 * number as f64;
        let _ = writeln!(
            svg,
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/><rect x="{LEFT}" y="{:.0}" width="12" height="4" fill="{colour}"/><text x="{}" y="{below:.0}">{}</text>"#,
            path.join(" "),
            below - 6.0,
            LEFT + 18.0,
            escaped(&line.label)
        );
        for point in &path {
            let (x, y) = point.split_once(',').unwrap_or(("0", "0"));
            let _ = writeln!(svg, r#"<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>"#);
        }
    }
    svg + "</svg>\n"
}

fn head(title: &str, height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"12\" y=\"20\" font-size=\"14\" font-weight=\"bold\">{}</text>\n",
        escaped(title)
    )
}

/// Three digits that count, and thousands as people write them.
fn short(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{} M", trimmed(v / 1e6)),
        v if v >= 10_000.0 => format!("{} k", trimmed(v / 1e3)),
        v => trimmed(v),
    }
}

fn trimmed(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
    .trim_end_matches(".00")
    .trim_end_matches(".0")
    .to_owned()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
