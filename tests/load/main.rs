//! The load rig itself, for a moment: every variant answers, the books are compared, the figures have their names.

use std::path::PathBuf;
use std::time::Duration;

use e2e::load::{self, LoadOptions};

#[test]
fn a_short_run_is_clean_and_has_all_figures() {
    let report = load::run(&LoadOptions {
        rounds: 1,
        duration: Duration::from_millis(700),
        connections: 8,
        merchants: 10,
        growth: vec![20],
        release: false,
        program: PathBuf::from(env!("CARGO_BIN_EXE_load")),
    })
    .unwrap();
    let json = report.to_json();
    assert!(report.is_clean(), "{json:#}");
    for variant in ["envoy", "parse_only", "native_allow", "sluice"] {
        for figure in ["rps", "p50_ms", "p99_ms"] {
            assert!(json["variants"][variant][figure].as_f64().unwrap() > 0.0, "{variant} {figure}: {json:#}");
        }
        assert!(json["variants"][variant]["cpu_us"]["envoy"].as_f64().unwrap() > 0.0, "{variant}: {json:#}");
    }
    for process in ["server", "redis", "postgres"] {
        assert!(json["variants"]["sluice"]["cpu_us"][process].as_f64().unwrap() > 0.0, "{process}: {json:#}");
    }
    for figure in ["parse_only", "native_allow", "envoy"] {
        assert!(json["ratios"][figure].as_f64().unwrap() > 0.0, "{figure}: {json:#}");
    }
    for figure in ["wrong_answers", "over_admissions", "journal_missing", "counters_wrong"] {
        assert_eq!(json[figure], 0, "{figure}: {json:#}");
    }
    assert_eq!(json["growth"][0]["merchants"], 20, "{json:#}");
    assert!(json["memory"]["account_bytes"].as_f64().unwrap() > 60.0, "{json:#}");
    let text = report.to_string();
    assert!(text.contains("Sluice to native ext_authz") && text.contains("20 merchants"), "{text}");
}
