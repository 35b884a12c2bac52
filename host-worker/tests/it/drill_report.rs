//! The page of a drill: whole in itself, safe with whatever is in a name, and true to its report.

use host_worker::drill::html::render;
use protocol::DrillReport;

use crate::drill_samples;

#[test]
fn a_report_is_read_as_it_was_written_and_a_later_format_is_refused() {
    for (name, report) in drill_samples::all() {
        let bytes = report.to_json().unwrap();
        assert_eq!(DrillReport::from_json(&bytes).unwrap(), report, "{name}");
        let later =
            String::from_utf8(bytes).unwrap().replacen("\"format_version\": 1", "\"format_version\": 2", 1);
        let refused = DrillReport::from_json(later.as_bytes()).unwrap_err().to_string();
        assert!(refused.contains("format version 2"), "{refused}");
    }
}

#[test]
fn a_page_needs_nothing_else_and_runs_nothing() {
    for (name, report) in drill_samples::all() {
        let page = render(&report);
        for forbidden in ["<script", "<link", "<img", "<iframe", "url(", "@import"] {
            assert!(!page.contains(forbidden), "{name}: {forbidden}");
        }
        // What is said in words may look like an attribute; what stands in a tag is one.
        for tag in page.split('<').filter_map(|part| Some(part.split_once('>')?.0)) {
            for forbidden in [" src=", " href=", " on", "javascript:"] {
                let attributes = tag.split_once(" aria-label=").map_or(tag, |(before, _)| before);
                assert!(!attributes.contains(forbidden), "{name}: <{tag}>");
            }
        }
        assert_eq!(page, render(&report), "{name}: it is not the same twice");
    }
}

/// Every tag that is opened is closed, in order: the page is written so that an XML parser would take it, too.
#[test]
fn a_page_is_well_formed() {
    for (name, report) in drill_samples::all() {
        let page = render(&report);
        let mut open: Vec<String> = Vec::new();
        let mut rest = page.split_once("<html").unwrap().1;
        open.push("html".to_owned());
        while let Some((_, after)) = rest.split_once('<') {
            let (tag, after) = after.split_once('>').unwrap();
            rest = after;
            let word = tag.trim_end_matches('/').split_whitespace().next().unwrap();
            if let Some(closed) = word.strip_prefix('/') {
                assert_eq!(open.pop().as_deref(), Some(closed), "{name}: <{tag}>");
            } else if !tag.ends_with('/') {
                open.push(word.to_owned());
            }
        }
        assert_eq!(open, Vec::<String>::new(), "{name}");
        let ampersands = page.split('&').skip(1);
        for after in ampersands {
            let entity = after.split(';').next().unwrap();
            assert!(["amp", "lt", "gt", "quot", "#39"].contains(&entity), "{name}: &{entity}");
        }
    }
}

#[test]
fn the_verdict_comes_first_and_what_is_wrong_before_everything_else() {
    let pages: Vec<(&str, String)> =
        drill_samples::all().into_iter().map(|(name, report)| (name, render(&report))).collect();
    let page = |wanted: &str| &pages.iter().find(|(name, _)| *name == wanted).unwrap().1;
    let order = |page: &str, texts: &[&str]| {
        let places: Vec<usize> = texts
            .iter()
            .map(|text| page.find(text).unwrap_or_else(|| panic!("`{text}` is missing")))
            .collect();
        assert!(places.is_sorted(), "{texts:?}: {places:?}");
    };
    order(
        page("passed"),
        &[
            "restores, and is what was recorded.",
            "Restored and verified in 12 min 4 s, 60% of the target of 20 min",
            "What was restored",
            "What took how long",
            "Points",
            "Searches",
            "Trend",
            "Every comparison",
            "Evidence",
        ],
    );
    assert!(!page("passed").contains("What is wrong"));
    order(
        page("different"),
        &[
            "restores, and is not what was recorded.",
            "4 of 17 comparisons came out wrong",
            "What is wrong",
            "8120333 points, expected 8120334",
            "`live` is missing",
            "The target is broken",
        ],
    );
    order(page("failed"), &["was not restored.", "ArchiveCorrupt", "What to do: do not restore from it"]);
    assert!(page("first").contains("This is the first drill"));
    assert!(page("passed").contains("from about"), "no forecast");
    assert!(page("many").contains("160 are not"), "not all of two hundred can be drawn");
    assert!(page("many").contains(&"x".repeat(250)), "a name is cut off where it must not be");
}
