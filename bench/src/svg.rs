//! Writes plots as SVG without a library, because they are simple: bars with their spread, and lines over the number of
//! connections.

use std::fmt::Write as _;

use crate::spec::number;

const WIDTH: f64 = 880.0;
/// The width left of the bars, for names.
const LABEL: f64 = 176.0;
/// The width right of the bars, for numbers.
const VALUE: f64 = 74.0;
const ROW: f64 = 17.0;
/// The height above the first group or panel, for the title and the key.
const HEAD: f64 = 66.0;

/// A bar: its name, and minimum, quartiles, maximum.
pub struct Bar {
    pub name: String,
    pub spread: [f64; 5],
}

/// A group of bars with one scale.
pub struct Group {
    pub title: String,
    pub bars: Vec<Bar>,
    /// The limit that no peer can exceed.
    pub limit: Option<f64>,
}

/// A line: its name, and for each number of connections minimum, quartiles and maximum.
pub struct Line {
    pub name: String,
    pub points: Vec<(usize, [f64; 5])>,
}

/// Lines with one scale.
pub struct Panel {
    pub title: String,
    pub lines: Vec<Line>,
}

/// The colour of a peer, which is the same in all plots. Related peers have similar colours.
fn colour(peer: &str) -> &'static str {
    match peer {
        "bowline" => "#1f5fa8",
        "bowline-callback" | "bowline-corked" => "#7fa8d6",
        "bowline-express" => "#12806a",
        "bowline-express-callback" | "bowline-express-corked" => "#74bfae",
        "bowline-tcp" => "#62707f",
        "tcp" => "#a9b1ba",
        "tokio-rustls" => "#d9822b",
        "tokio-rustls+buf8k" | "tokio-rustls+buf64k" => "#efbf8c",
        "tokio-openssl" => "#b33a3a",
        "s2n-tls-tokio" => "#8a5fb0",
        "tokio-boring" => "#a98600",
        "go" => "#c45c96",
        _ => "#8d6e63",
    }
}

fn open(title: &str, unit: &str, height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" \
         height=\"{height:.0}\" font-family=\"Helvetica, Arial, sans-serif\" font-size=\"11\" fill=\"#222\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"14\" y=\"26\" font-size=\"17\" font-weight=\"bold\">{title}</text>\n\
         <text x=\"{:.0}\" y=\"26\" text-anchor=\"end\" font-size=\"12\" fill=\"#555\">{unit}</text>\n",
        WIDTH - 14.0
    )
}

/// Round steps from 0 to a little more than `most`, five or so.
fn ticks(most: f64) -> Vec<f64> {
    let rough = most / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|m| m * power).into_iter().find(|step| *step >= rough).unwrap_or(rough);
    (0..).map(|n| f64::from(n) * step).take_while(|tick| *tick <= most * 1.0001).collect()
}

/// `1,500`, `0.25`, `2`
fn tick_label(value: f64) -> String {
    let text = format!("{value:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if value < 1000.0 || value.fract() != 0.0 {
        return text.to_owned();
    }
    let digits = text.len();
    text.chars().enumerate().fold(String::new(), |mut all, (at, digit)| {
        if at > 0 && (digits - at) % 3 == 0 {
            all.push(',');
        }
        all.push(digit);
        all
    })
}

/// Bars, with one group for each measurement. The bar ends at the median, the thick line shows the quartiles, and the
/// thin line the whole range. A bar that would make the others too small to read is cut, and marked.
pub fn bars(title: &str, unit: &str, groups: &[Group]) -> String {
    let rows: usize = groups.iter().map(|group| group.bars.len()).sum();
    let height = HEAD + groups.len() as f64 * 54.0 + rows as f64 * ROW + 8.0;
    let mut svg = open(title, unit, height);
    svg += "<text x=\"14\" y=\"48\" fill=\"#555\">bar: median</text>\
            <path d=\"M96 44H138\" stroke=\"#222\"/><path d=\"M106 44H126\" stroke=\"#222\" stroke-width=\"4\"/>\
            <text x=\"144\" y=\"48\" fill=\"#555\">all rounds, and their quartiles</text>";
    if groups.iter().any(|group| group.limit.is_some()) {
        svg += "<path d=\"M330 38V50\" stroke=\"#c00\" stroke-dasharray=\"3 2\"/>\
                <text x=\"338\" y=\"48\" fill=\"#555\">the limit: raw TCP and the cipher</text>";
    }
    svg += "\n";
    let mut y = HEAD;
    for group in groups {
        y = draw(&mut svg, group, y);
    }
    svg + "</svg>\n"
}

/// Returns the position of the next group.
fn draw(svg: &mut String, group: &Group, top: f64) -> f64 {
    let mut medians: Vec<f64> = group.bars.iter().map(|bar| bar.spread[2]).collect();
    medians.sort_by(f64::total_cmp);
    let middle = medians[medians.len() / 2];
    let most = group.bars.iter().map(|bar| bar.spread[4]).fold(f64::MIN_POSITIVE, f64::max);
    // The scale is cut only if one or two bars are far longer than the rest.
    let far = medians.iter().filter(|median| **median > 4.0 * middle).count();
    let near = medians[medians.len() - 1 - if far <= 2 { far } else { 0 }];
    let most = most.min(1.6 * near.max(group.limit.unwrap_or(0.0)));
    let room = WIDTH - LABEL - VALUE;
    let x = |value: f64| LABEL + (value / most).min(1.0) * room;
    let (from, to) = (top + 20.0, top + 24.0 + group.bars.len() as f64 * ROW);
    let _ = writeln!(
        svg,
        "<text x=\"14\" y=\"{:.0}\" font-size=\"12\" font-weight=\"bold\">{}</text>",
        top + 12.0,
        group.title
    );
    for tick in ticks(most) {
        let at = x(tick);
        let _ = write!(
            svg,
            "<path d=\"M{at:.1} {from:.0}V{to:.0}\" stroke=\"#e4e4e4\"/><text x=\"{at:.1}\" y=\"{:.0}\" \
             text-anchor=\"middle\" font-size=\"10\" fill=\"#888\">{}</text>",
            to + 11.0,
            tick_label(tick)
        );
    }
    for (row, bar) in group.bars.iter().enumerate() {
        let y = top + 22.0 + row as f64 * ROW;
        let middle = y + ROW / 2.0;
        let [least, low, median, high, end] = bar.spread.map(x);
        let is_cut = bar.spread[2] > most;
        let _ = write!(
            svg,
            "\n<text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text><rect x=\"{LABEL}\" y=\"{:.1}\" \
             width=\"{:.1}\" height=\"{:.0}\" fill=\"{}\"/>",
            LABEL - 8.0,
            middle + 4.0,
            bar.name,
            y + 2.0,
            median - LABEL,
            ROW - 4.0,
            colour(&bar.name)
        );
        if is_cut {
            let at = x(most) - 26.0;
            let _ = write!(svg, "<path d=\"M{at:.0} {:.1}l8 -{ROW}h6l-8 {ROW}z\" fill=\"#fff\"/>", y + ROW);
        } else {
            let _ = write!(
                svg,
                "<path d=\"M{least:.1} {middle:.1}H{end:.1}\" stroke=\"#222\"/>\
                 <path d=\"M{low:.1} {middle:.1}H{high:.1}\" stroke=\"#222\" stroke-width=\"4\"/>"
            );
        }
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            end.max(median) + 6.0,
            middle + 4.0,
            number(bar.spread[2])
        );
    }
    if let Some(limit) = group.limit {
        let at = x(limit);
        let _ = write!(svg, "\n<path d=\"M{at:.1} {from:.0}V{to:.0}\" stroke=\"#c00\" stroke-dasharray=\"3 2\"/>");
    }
    svg.push('\n');
    to + 30.0
}

const PANEL: f64 = 340.0;
/// The width right of the lines, for their names.
const NAMES: f64 = 196.0;

/// Lines over the number of connections, one panel below the other.
pub fn growth(title: &str, unit: &str, panels: &[Panel]) -> String {
    let mut svg = open(title, unit, HEAD + panels.len() as f64 * PANEL);
    svg += "<text x=\"14\" y=\"48\" fill=\"#555\">points: medians; upright lines: quartiles; across, on a logarithmic scale: \
            connections</text>\n";
    for (at, panel) in panels.iter().enumerate() {
        lines(&mut svg, panel, HEAD + at as f64 * PANEL);
    }
    svg + "</svg>\n"
}

fn lines(svg: &mut String, panel: &Panel, top: f64) {
    let points = || panel.lines.iter().flat_map(|line| &line.points);
    let most = points().map(|point| point.1[4]).fold(f64::MIN_POSITIVE, f64::max);
    let last = points().map(|point| point.0).max().unwrap_or(2).max(2) as f64;
    let (left, right, upper, lower) = (70.0, WIDTH - NAMES, top + 26.0, top + PANEL - 44.0);
    let x = |connections: usize| left + 12.0 + (connections as f64).ln() / last.ln() * (right - left - 24.0);
    let y = |value: f64| lower - value / most * (lower - upper);
    let _ = writeln!(
        svg,
        "<text x=\"14\" y=\"{:.0}\" font-size=\"12\" font-weight=\"bold\">{}</text>",
        top + 12.0,
        panel.title
    );
    for tick in ticks(most) {
        let at = y(tick);
        let _ = write!(
            svg,
            "<path d=\"M{left} {at:.1}H{right}\" stroke=\"#e4e4e4\"/><text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\" \
             font-size=\"10\" fill=\"#888\">{}</text>",
            left - 6.0,
            at + 3.5,
            tick_label(tick)
        );
    }
    let mut counts: Vec<usize> = points().map(|point| point.0).collect();
    counts.sort_unstable();
    counts.dedup();
    for count in counts {
        let _ = write!(
            svg,
            "<path d=\"M{0:.1} {upper:.0}V{lower:.0}\" stroke=\"#f0f0f0\"/><text x=\"{0:.1}\" y=\"{1:.0}\" \
             text-anchor=\"middle\" font-size=\"10\" fill=\"#888\">{2}</text>",
            x(count),
            lower + 15.0,
            tick_label(count as f64)
        );
    }
    let ends: Vec<f64> = panel.lines.iter().map(|line| line.points.last().map_or(lower, |end| y(end.1[2]))).collect();
    let names = apart(&ends, 12.5, upper, lower + 16.0);
    for ((line, end), name) in panel.lines.iter().zip(ends).zip(names) {
        let colour = colour(&line.name);
        let mut path = String::new();
        for (count, [_, low, median, high, _]) in &line.points {
            let at = x(*count);
            let _ = write!(path, "{}{at:.1} {:.1}", if path.is_empty() { 'M' } else { 'L' }, y(*median));
            let _ = write!(
                svg,
                "<path d=\"M{at:.1} {:.1}V{:.1}\" stroke=\"{colour}\" stroke-width=\"1\"/>\
                 <circle cx=\"{at:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>",
                y(*low),
                y(*high),
                y(*median)
            );
        }
        let is_ours = line.name.starts_with("bowline");
        let from = line.points.last().map_or(right, |end| x(end.0));
        let _ = writeln!(
            svg,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{}\"/>\
             <path d=\"M{:.1} {end:.1}L{:.1} {name:.1}\" stroke=\"{colour}\" stroke-width=\"0.6\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\"{}>{}</text>",
            if is_ours { 2.2 } else { 1.5 },
            from + 4.0,
            right + 16.0,
            right + 19.0,
            name + 4.0,
            if is_ours { " font-weight=\"bold\"" } else { "" },
            line.name,
        );
    }
}

/// Moves labels so that they do not overlap: they keep their order, are at least `gap` apart, and stay within these
/// bounds.
fn apart(wanted: &[f64], gap: f64, top: f64, bottom: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|a, b| wanted[*a].total_cmp(&wanted[*b]));
    let mut placed = wanted.to_vec();
    let mut next = top;
    for at in &order {
        placed[*at] = wanted[*at].max(next);
        next = placed[*at] + gap;
    }
    let mut limit = bottom;
    for at in order.iter().rev() {
        placed[*at] = placed[*at].min(limit);
        limit = placed[*at] - gap;
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_do_not_lie_on_each_other() {
        assert_eq!(apart(&[10.0, 11.0, 50.0], 5.0, 0.0, 52.0), [10.0, 15.0, 50.0]);
        assert_eq!(apart(&[50.0, 51.0, 9.0], 5.0, 0.0, 52.0), [47.0, 52.0, 9.0]);
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(ticks(9.0), [0.0, 2.0, 4.0, 6.0, 8.0]);
        assert_eq!(tick_label(150_000.0), "150,000");
        assert_eq!(tick_label(0.25), "0.25");
        assert_eq!(tick_label(0.0), "0");
    }
}
