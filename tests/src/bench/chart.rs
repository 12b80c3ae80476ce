//! Runs as a picture, in SVG: how much of what its goal allows each line takes, so that every goal stands at one place,
//! however it counts. Shorter is better.

use std::fmt::Write;

use super::json::Run;
use super::line::{Bound, Line, Measured, Outcome, Verdict};

const WIDTH: f64 = 960.0;
const ROW_HEIGHT: f64 = 22.0;
const TOP: f64 = 58.0;
const BOTTOM: f64 = 40.0;
/// Where the bars begin, and where their goal is.
const BARS_X: f64 = 400.0;
const GOAL_X: f64 = 680.0;
/// No bar is longer than this; one that would be has no end.
const MOST_X: f64 = 760.0;

/// All lines that have a goal, in the order of the runs.
pub fn draw(runs: &[Run]) -> String {
    let measured: Vec<(&Line, &Measured, Bound)> =
        runs.iter().flat_map(|run| &run.lines).filter_map(with_goal).collect();
    #[expect(clippy::cast_precision_loss, reason = "some dozens of lines")]
    let bars_end = TOP + ROW_HEIGHT * measured.len() as f64;
    let height = bars_end + BOTTOM;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" rx=\"6\" fill=\"#ffffff\"/>\n"
    );
    text(
        &mut svg,
        16.0,
        26.0,
        "start",
        "#1f2328\" font-size=\"16\" font-weight=\"bold",
        "What is measured, and how much of its goal it takes",
    );
    text(&mut svg, BARS_X, 46.0, "start", "#59636e", "shorter is better");
    text(&mut svg, GOAL_X, 46.0, "middle", "#1f2328", "goal");
    let mut y = TOP;
    for (line, measured, goal) in measured {
        row(&mut svg, y, line, measured, goal);
        y += ROW_HEIGHT;
    }
    let _ = writeln!(
        svg,
        "<line x1=\"{GOAL_X}\" y1=\"{}\" x2=\"{GOAL_X}\" y2=\"{bars_end}\" stroke=\"#1f2328\" stroke-width=\"1.5\"/>",
        TOP - 6.0
    );
    text(&mut svg, 16.0, bars_end + 24.0, "start", "#59636e", &footer(runs));
    svg.push_str("</svg>\n");
    svg
}

fn with_goal(line: &Line) -> Option<(&Line, &Measured, Bound)> {
    match &line.outcome {
        Outcome::Measured(measured) => Some((line, measured, measured.goal?)),
        _ => None,
    }
}

fn row(svg: &mut String, y: f64, line: &Line, measured: &Measured, goal: Bound) {
    let middle = y + ROW_HEIGHT / 2.0 + 4.0;
    let colour = match measured.verdict() {
        Verdict::Missed => "#cf222e",
        Verdict::Stretch => "#1a7f37",
        Verdict::Goal | Verdict::Shown => "#4c9a5f",
    };
    let at = |share: f64| (BARS_X + share * (GOAL_X - BARS_X)).min(MOST_X);
    let share = goal.share(measured.value());
    let (bar_y, bar_height) = (y + 4.0, ROW_HEIGHT - 8.0);
    text(svg, BARS_X - 8.0, middle, "end", "#1f2328", &line.what);
    let width = at(share) - BARS_X;
    let _ = writeln!(
        svg,
        "<rect x=\"{BARS_X}\" y=\"{bar_y}\" width=\"{width:.1}\" height=\"{bar_height}\" rx=\"2\" fill=\"{colour}\"/>"
    );
    if let Some(stretch) = measured.stretch {
        let x = at(goal.share(stretch.value()));
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"{}\" x2=\"{x:.1}\" y2=\"{}\" stroke=\"#1f2328\" stroke-dasharray=\"2 2\"/>",
            y + 2.0,
            y + ROW_HEIGHT - 2.0
        );
    }
    let words = format!("{} (goal {goal})", measured.text());
    text(svg, MOST_X + 10.0, middle, "start", "#1f2328", &words);
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, fill: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ =
        writeln!(svg, "<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\" fill=\"{fill}\">{words}</text>");
}

fn footer(runs: &[Run]) -> String {
    let machines = runs.iter().map(|run| {
        let machine = &run.machine;
        format!("{} × {}, Linux {}", machine.processors, machine.processor, machine.kernel)
    });
    let mut machines: Vec<String> = machines.collect();
    machines.dedup();
    format!(
        "Medians; × is the ratio to a reference in the same run. Dashed: a goal beyond the goal. {}.",
        machines.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use super::super::line::{Figure, Unit};
    use super::super::machine::Machine;
    use super::*;

    fn run() -> Run {
        let figure = |value| Figure::counted("x", Unit::Usec, value);
        let line = |what, own| Line::new("row", what, figure(own), Some(figure(10.0)));
        let lines = vec![
            line("half of <it>", 10.0).goal(Bound::AtMost(2.0)).stretch(Bound::AtMost(1.5)),
            line("too much", 1000.0).goal(Bound::AtMost(2.0)),
            line("enough & more", 20.0).goal(Bound::AtLeast(1.0)),
            line("no goal", 1.0),
            Line::missing("row", "not here", "no reason"),
        ];
        Run { machine: Machine { processor: "P & Q".into(), ..Machine::default() }, lines }
    }

    fn widths(svg: &str) -> Vec<f64> {
        let bars = svg.lines().filter(|line| line.contains("rx=\"2\""));
        bars.map(|bar| {
            let (_, rest) = bar.split_once("width=\"").expect("a width");
            rest.split('"').next().and_then(|width| width.parse().ok()).expect("a number")
        })
        .collect()
    }

    #[test]
    fn a_bar_is_as_long_as_its_share_of_the_goal() {
        let goal = GOAL_X - BARS_X;
        assert_eq!(widths(&draw(&[run()])), [goal / 2.0, MOST_X - BARS_X, goal / 2.0]);
    }

    #[test]
    fn only_what_missed_its_goal_is_red() {
        let svg = draw(&[run()]);
        assert_eq!(svg.matches("#cf222e").count(), 1);
        assert!(svg.contains("100 × (goal ≤ 2.00)"), "{svg}");
    }

    #[test]
    fn it_is_well_formed() {
        let svg = draw(&[run(), run()]);
        assert!(svg.contains("half of &lt;it&gt;") && svg.contains("enough &amp; more"), "{svg}");
        assert!(!svg.contains("no goal") && !svg.contains("not here"), "{svg}");
        for element in ["svg", "text"] {
            let opened = svg.matches(&format!("<{element} ")).count();
            assert_eq!(opened, svg.matches(&format!("</{element}>")).count(), "{element}");
        }
        for line in svg.lines().filter(|line| line.starts_with("<rect") || line.starts_with("<line")) {
            assert!(line.ends_with("/>") && line.matches('"').count() % 2 == 0, "{line}");
        }
    }
}
