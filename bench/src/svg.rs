//! Plots: bars with their spread, one group for each measurement. By hand, since there is so little in them.

use std::fmt::Write as _;

const WIDTH: f64 = 860.0;
const LABEL: f64 = 190.0;
const VALUE: f64 = 90.0;
const ROW: f64 = 20.0;

/// A bar: its name, and minimum, quartiles, maximum.
pub struct Bar {
    pub name: String,
    pub spread: [f64; 5],
}

/// A group of bars with one scale.
pub struct Group {
    pub title: String,
    pub bars: Vec<Bar>,
}

/// A plot, as text of an SVG file. The bar ends at the median; the thick line is the quartiles, the thin one all there was.
pub fn plot(title: &str, unit: &str, groups: &[Group]) -> String {
    let rows: usize = groups.iter().map(|group| group.bars.len()).sum();
    let height = 50.0 + groups.len() as f64 * 34.0 + rows as f64 * ROW;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"10\" y=\"24\" font-size=\"16\">{title}</text>\n<text x=\"{:.0}\" y=\"24\" text-anchor=\"end\" \
         fill=\"#666\">{unit}</text>\n",
        WIDTH - 10.0
    );
    let mut y = 44.0;
    for group in groups {
        let most = group.bars.iter().map(|bar| bar.spread[4]).fold(f64::MIN_POSITIVE, f64::max);
        let x = |value: f64| LABEL + value / most * (WIDTH - LABEL - VALUE);
        y += 14.0;
        let _ = writeln!(svg, "<text x=\"10\" y=\"{y:.0}\" font-weight=\"bold\">{}</text>", group.title);
        y += 6.0;
        for bar in &group.bars {
            let [least, low, median, high, most] = bar.spread.map(x);
            let middle = y + ROW / 2.0;
            let colour = if bar.name.starts_with("bowline") { "#2f6f9f" } else { "#b8b8b8" };
            let _ = writeln!(
                svg,
                "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>\
                 <rect x=\"{LABEL}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>\
                 <path d=\"M{least:.1} {middle:.1}H{most:.1}\" stroke=\"#000\"/>\
                 <path d=\"M{low:.1} {middle:.1}H{high:.1}\" stroke=\"#000\" stroke-width=\"4\"/>\
                 <text x=\"{:.1}\" y=\"{:.0}\">{}</text>",
                LABEL - 8.0,
                middle + 4.0,
                bar.name,
                y + 3.0,
                (median - LABEL).max(0.0),
                ROW - 6.0,
                most.max(median) + 6.0,
                middle + 4.0,
                crate::report::number(bar.spread[2]),
            );
            y += ROW;
        }
        y += 14.0;
    }
    svg + "</svg>\n"
}
