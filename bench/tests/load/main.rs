//! The load rig itself, for a moment: every variant and every study answers, peers are counted, the books are compared, the
//! figures have their names. Time is not looked at: the server is not optimised.

#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of the test functions")]

mod document;

use std::path::PathBuf;
use std::time::Duration;

use bench::load::{self, Axis, Closer, JournalOptions, LoadOptions, Peer, Report, Variant};
use serde_json::Value;

const VARIANTS: [&str; 9] = [
    "envoy",
    "parse_only",
    "parse_only_native_host",
    "native_allow",
    "sluice",
    "sluice_native_host",
    "sluice_unbatched",
    "trusted",
    "trusted_native_host",
];

fn options() -> LoadOptions {
    LoadOptions {
        targets: false,
        closer: None,
        studies: Vec::new(),
        peers: Vec::new(),
        journal: None,
        counts: false,
        rounds: 1,
        duration: Duration::from_millis(700),
        connections: 8,
        merchants: 10,
        merchants_max: 1_000,
        // A server that is not optimised falls behind its deadlines with more.
        connections_max: 16,
        release: false,
        program: PathBuf::from(env!("CARGO_BIN_EXE_load")),
    }
}

fn run(options: &LoadOptions) -> (Report, Value) {
    let report = load::run(options).unwrap();
    let json = report.to_json();
    assert!(report.is_clean(), "{json:#}");
    for figure in ["/wrong_answers", "/verdict/journal_missing", "/verdict/counters_wrong", "/races/0/over_admissions"]
    {
        assert_eq!(json.pointer(figure), Some(&0.into()), "{figure}: {json:#}");
    }
    assert!(json["verdict"]["orders"].as_u64().unwrap() > 300, "{json:#}");
    races_are_exact(&json);
    (report, json)
}

fn races_are_exact(json: &Value) {
    let races = json["races"].as_array().unwrap();
    let who: Vec<&str> = races.iter().map(|race| race["who"].as_str().unwrap()).collect();
    assert_eq!(who, ["sluice", "sluice_native_host", "sluice_unbatched", "trusted", "trusted_native_host"]);
    for (race, who) in races.iter().zip(who) {
        assert_eq!((&race["admitted"], &race["over_admissions"]), (&race["room"], &0.into()), "{race:#}");
        assert_eq!(race["trusted"].as_u64().is_some_and(|trusted| trusted > 0), who.starts_with("trusted"), "{race:#}");
    }
}

#[track_caller]
fn is_positive(json: &Value, pointer: &str) {
    let figure = json.pointer(pointer).and_then(Value::as_f64);
    assert!(figure.is_some_and(|figure| figure > 0.0), "{pointer}: {json:#}");
}

#[test]
fn the_comparison_has_all_figures() {
    let (report, json) = run(&LoadOptions { targets: true, ..options() });
    for variant in VARIANTS {
        for figure in ["rps", "p50_ms", "p99_ms", "cpu_us/envoy", "cpu_us/generator", "cpu_us/gateway"] {
            is_positive(&json, &format!("/comparison/stretches/full_load/{variant}/{figure}/median"));
        }
    }
    for figure in ["cpu_us/server", "cpu_us/redis", "cpu_us/postgres", "server_us/decisions", "server_us/journal"] {
        is_positive(&json, &format!("/comparison/stretches/full_load/sluice/{figure}/median"));
    }
    for variant in ["one_connection/sluice", "one_connection/sluice_native_host", "one_connection/sluice_unbatched"] {
        is_positive(&json, &format!("/comparison/stretches/{variant}/p50_ms/median"));
    }
    let peak = json["comparison"]["peak_per_second"].as_f64().unwrap();
    for (share, part) in [(25, 0.25), (50, 0.5), (75, 0.75)] {
        for variant in VARIANTS {
            is_positive(&json, &format!("/comparison/stretches/load_{share}/{variant}/p99_ms/median"));
        }
        let rate =
            json["comparison"]["stretches"][format!("load_{share}")]["sluice"]["rps"]["median"].as_f64().unwrap();
        assert!(rate <= peak * part * 1.05, "the generator sends {rate} a second, {share} % of {peak} were asked for");
        for figure in ["p50", "p99", "native_host_p50", "native_host_p99"] {
            is_positive(&json, &format!("/latency/{figure}_to_native_allow/{share}/median"));
        }
        for figure in ["p50", "p99"] {
            is_positive(&json, &format!("/latency/trusted_{figure}_to_parse_only/{share}/median"));
            is_positive(&json, &format!("/latency/trusted_native_host_{figure}_to_parse_only/{share}/median"));
        }
    }
    for variant in ["trusted", "trusted_native_host"] {
        for figure in ["trusted", "cpu_us/server", "cpu_us/redis", "cpu_us/postgres"] {
            is_positive(&json, &format!("/comparison/stretches/full_load/{variant}/{figure}/median"));
        }
    }
    assert!(json.pointer("/comparison/stretches/full_load/sluice/trusted").is_none(), "{json:#}");
    for variant in VARIANTS {
        is_positive(&json, &format!("/comparison/slices/envoy_us/{variant}/median"));
        is_positive(&json, &format!("/comparison/slices/to_parse_only/{variant}/median"));
    }
    for ratio in ["parse_only", "native_allow", "native_host_parse_only", "native_host_native_allow"] {
        is_positive(&json, &format!("/ratios/{ratio}/median"));
    }
    for ratio in ["trusted_parse_only", "trusted_native_host_parse_only", "trusted_native_allow"] {
        is_positive(&json, &format!("/ratios/{ratio}/median"));
    }
    for ratio in ["trusted_to_sluice", "trusted_native_host_to_sluice_native_host"] {
        is_positive(&json, &format!("/processor_time/{ratio}/median"));
    }
    is_positive(&json, "/comparison/slices/native_host_to_wasm_host/median");
    is_positive(&json, "/memory/account_bytes");
    is_positive(&json, "/memory/order_bytes");
    is_positive(&json, "/journal_share_of_cpu");
    let merchants = json["studies"][0]["points"].as_array().unwrap();
    assert_eq!(merchants.iter().map(|point| point["at"].as_u64().unwrap()).collect::<Vec<_>>(), [100, 1_000]);
    assert_eq!(json["targets"].as_array().unwrap().len(), 26, "{json:#}");
    let text = report.to_string();
    for words in [
        "Sluice to parse-only",
        "Merchants",
        "the peak is",
        "Envoy's processor time",
        "race, sluice",
        "trusted, to parse-only",
        "trusted_p50_to_parse_only",
        "of them from rights",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn some_variants_are_measured_by_themselves() {
    let variants = vec![Variant::Trusted, Variant::ParseOnly, Variant::SluiceNativeHost];
    for per_second in [None, Some(40.0)] {
        let closer = Some(Closer { variants: variants.clone(), per_second });
        let (report, json) = run(&LoadOptions { closer, ..options() });
        let figures = json["closer_look"]["figures"].as_object().unwrap();
        assert_eq!(figures.keys().collect::<Vec<_>>(), ["parse_only", "sluice_native_host", "trusted"]);
        for variant in figures.values() {
            is_positive(variant, "/p50_ms/median");
            let rate = variant["rps"]["median"].as_f64().unwrap();
            assert!(per_second.is_none_or(|asked| rate <= asked * 1.05), "{rate} of {per_second:?}");
        }
        assert!(report.requests() > 0 && report.to_string().contains("a closer look"), "{report}");
    }
}

#[test]
fn every_axis_is_studied() {
    let studies = Axis::ALL.into_iter().filter(|axis| *axis != Axis::Merchants).collect::<Vec<_>>();
    let duration = Duration::from_millis(150);
    let (_, json) = run(&LoadOptions { studies: studies.clone(), duration, ..options() });
    let found = json["studies"].as_array().unwrap();
    assert_eq!(found.len(), studies.len(), "{json:#}");
    for (study, points) in found.iter().zip([10, 5, 2, 2, 3, 2, 5, 3, 2]) {
        assert_eq!(study["points"].as_array().unwrap().len(), points, "{study:#}");
        for point in study["points"].as_array().unwrap() {
            is_positive(point, "/sluice/rps/median");
            is_positive(point, "/parse_only/rps/median");
        }
    }
}

#[test]
fn the_journal_is_measured_by_itself() {
    let duration = Duration::from_millis(500);
    let journal = JournalOptions { events: 2_000, merchants: 10, rates: vec![500], duration, release: false };
    let report = load::run(&LoadOptions { journal: Some(journal), ..options() }).unwrap();
    let json = report.to_json();
    assert!(report.is_clean(), "{json:#}");
    assert_eq!(json["journal"]["wrong"], 0, "{json:#}");
    is_positive(&json, "/journal/drained/events_per_second");
    is_positive(&json, "/journal/steady/0/rows_per_transaction");
    assert!(report.to_string().contains("waiting events"), "{report}");
}

#[test]
fn a_peer_that_reads_and_then_writes_over_admits_and_an_atomic_one_does_not() {
    let program = env!("CARGO_BIN_EXE_load");
    let line = |counting: &str| {
        format!(
            "exec {program} sample-peer --counting {counting} --redis-url {{redis_url}} --limit {{limit}} \
             --listen 127.0.0.1:{{port}}"
        )
    };
    let variables = [
        ("SLUICE_PEER_RACY", line("read-then-write")),
        ("SLUICE_PEER_RACY_KIND", "rls".to_owned()),
        ("SLUICE_PEER_EXACT", line("atomic")),
        ("SLUICE_PEER_EXACT_KIND", "rls".to_owned()),
        ("SLUICE_PEER_AUTHZ", line("atomic") + " --ext-authz"),
        ("SLUICE_PEER_AUTHZ_KIND", "ext_authz".to_owned()),
    ];
    let variables = variables.into_iter().map(|(name, value)| (name.to_owned(), value));
    let peers = Peer::from_variables(variables).unwrap();
    let (_, json) = run(&LoadOptions { peers, ..options() });
    let peers = json["peers"].as_array().unwrap();
    let names: Vec<&str> = peers.iter().map(|peer| peer["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["authz", "exact", "racy", "sluice", "sluice_native_host"]);
    for (peer, over_admits) in peers.iter().zip([false, false, true]) {
        for variant in ["sluice", "sluice_native_host"] {
            is_positive(peer, &format!("/sluice_to_peer/{variant}/median"));
        }
        assert_eq!(peer["race"]["over_admissions"].as_u64().unwrap() > 0, over_admits, "{peer:#}");
        assert_eq!((&peer["race"]["wrong"], &peer["lost"]), (&0.into(), &0.into()), "{peer:#}");
        is_positive(peer, "/figures/rps/median");
        is_positive(peer, "/figures/cpu_us/server/median");
        assert!(peer.pointer("/figures/cpu_us/redis/median").is_some(), "{peer:#}");
    }
}
