//! The two forms of the metrics: OpenMetrics, which prometheus-client writes, and Prometheus's classic text, which is made
//! of it. Which of them an `Accept` header asks for. Pure.
//!
//! <https://prometheus.io/docs/specs/om/open_metrics_spec/>,
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::fmt::Write;

use http::HeaderMap;
use http::header::ACCEPT;

/// A form of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Classic,
    OpenMetrics,
}

impl Format {
    /// The one that a request asks for: OpenMetrics where it is named and preferred, else what every scraper reads.
    pub(super) fn asked_for(headers: &HeaderMap) -> Self {
        let lines = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
        let ranges: Vec<_> = lines.flat_map(|line| line.split(',')).filter_map(Range::parse).collect();
        let named = ranges.iter().filter(|range| range.is_open_metrics()).map(|range| range.quality).max();
        let classic = ranges.iter().filter_map(|range| Some((range.specificity()?, range.quality))).max();
        match (named.unwrap_or(0), classic.map_or(0, |(_, quality)| quality)) {
            (0, _) => Self::Classic,
            (named, classic) if named < classic => Self::Classic,
            _ => Self::OpenMetrics,
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// This form of a text that is OpenMetrics.
    pub(super) fn of(self, open_metrics: String) -> String {
        match self {
            Self::Classic => classic(&open_metrics),
            Self::OpenMetrics => open_metrics,
        }
    }
}

/// One of the media ranges of an `Accept` header (RFC 9110, 12.5.1).
#[derive(Debug)]
struct Range {
    name: String,
    version: Option<String>,
    /// In thousandths.
    quality: u16,
}

impl Range {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(';');
        let name = parts.next()?.trim().to_ascii_lowercase();
        let mut range = Self { name, version: None, quality: 1000 };
        for part in parts {
            let Some((key, value)) = part.split_once('=') else { continue };
            let value = value.trim().trim_matches('"');
            match key.trim().to_ascii_lowercase().as_str() {
                "version" => range.version = Some(value.to_owned()),
                "q" => range.quality = quality(value)?,
                _ => {}
            }
        }
        (!range.name.is_empty()).then_some(range)
    }

    /// In a version that is written here.
    fn is_open_metrics(&self) -> bool {
        let is_known = |version: &String| version.starts_with("1.0.") || version.starts_with("0.0.");
        self.name == "application/openmetrics-text" && self.version.as_ref().is_none_or(is_known)
    }

    /// How exactly it means classic text; `None` if it does not.
    fn specificity(&self) -> Option<u8> {
        match self.name.as_str() {
            "text/plain" => Some(2),
            "text/*" => Some(1),
            "*/*" => Some(0),
            _ => None,
        }
    }
}

/// A number from 0 to 1 with at most three digits behind the point, in thousandths.
fn quality(text: &str) -> Option<u16> {
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    let is_number = rest.len() <= 3 && rest.bytes().all(|byte| byte.is_ascii_digit());
    let thousandths: u16 = format!("{rest:0<3}").parse().ok().filter(|_| is_number)?;
    match (whole, thousandths) {
        ("0", thousandths) => Some(thousandths),
        ("1", 0) => Some(1000),
        _ => None,
    }
}

/// The classic form: a counter has its samples' name, there are fewer types, no units and no end.
fn classic(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            text.push_str(line);
            text.push('\n');
            continue;
        };
        // HELP comes first, and has to wait for the type, which says the name.
        match comment.splitn(3, ' ').collect::<Vec<_>>().as_slice() {
            ["HELP", _, words] => help = Some((*words).to_owned()),
            ["TYPE", family, of] => {
                let (name, kind) = match *of {
                    "counter" => (format!("{family}_total"), "counter".to_owned()),
                    "info" => (format!("{family}_info"), "gauge".to_owned()),
                    "stateset" => ((*family).to_owned(), "gauge".to_owned()),
                    "unknown" => ((*family).to_owned(), "untyped".to_owned()),
                    other => ((*family).to_owned(), other.to_owned()),
                };
                if let Some(words) = help.take() {
                    // Writing to a String can't fail.
                    let _ = writeln!(text, "# HELP {name} {}", words.replace("\\\"", "\""));
                }
                let _ = writeln!(text, "# TYPE {name} {kind}");
            }
            // UNIT and EOF.
            _ => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qualities_are_thousandths() {
        for (text, expected) in [
            ("1", Some(1000)),
            ("1.000", Some(1000)),
            ("0", Some(0)),
            ("0.5", Some(500)),
            ("0.123", Some(123)),
        ] {
            assert_eq!(quality(text), expected, "{text}");
        }
        for text in ["", "2", "1.1", "0.1234", "-1", ".5", "0.x", "a"] {
            assert_eq!(quality(text), None, "{text}");
        }
    }

    #[test]
    fn classic_text_has_its_own_names_and_types() {
        let open_metrics = "# HELP a_calls Calls.\n# TYPE a_calls counter\na_calls_total{x=\"y # \"} 1\n\
                            # HELP a_build What.\n# TYPE a_build info\na_build_info{v=\"1\"} 1\n\
                            # HELP a_took_seconds Took.\n# TYPE a_took_seconds histogram\n\
                            # UNIT a_took_seconds seconds\na_took_seconds_sum 0.5\n# EOF\n";
        let expected = "# HELP a_calls_total Calls.\n# TYPE a_calls_total counter\na_calls_total{x=\"y # \"} 1\n\
                        # HELP a_build_info What.\n# TYPE a_build_info gauge\na_build_info{v=\"1\"} 1\n\
                        # HELP a_took_seconds Took.\n# TYPE a_took_seconds histogram\na_took_seconds_sum 0.5\n";
        assert_eq!(Format::Classic.of(open_metrics.to_owned()), expected);
        assert_eq!(Format::OpenMetrics.of(open_metrics.to_owned()), open_metrics);
    }
}
