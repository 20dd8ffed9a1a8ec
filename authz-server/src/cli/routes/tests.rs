//! Each typo that Envoy accepts is named with its route, and the shipped files have none.

use std::path::Path;

use super::*;

const ENVOY: &str = include_str!("../../../../envoy/envoy.yaml");
const ROUTES: &str = include_str!("../../../../envoy/routes.yaml");

fn findings(texts: &[&str]) -> Vec<String> {
    let mut setup = Setup::default();
    for text in texts {
        setup.add(&yaml::parse(Path::new("file"), text).unwrap()).unwrap();
    }
    check::check(&setup).iter().map(ToString::to_string).collect()
}

#[test]
fn the_shipped_files_have_one_open_route_and_no_error() {
    let found = findings(&[ENVOY, ROUTES]);
    let open = "warning: virtual host \"payments\", route \"open-payments\", rule \"open-payments\": its payments are not \
        checked, because the filter is disabled: correct only where that is intended";
    assert_eq!(found, [open]);
}

/// What is exchanged in the shipped files, and the finding.
type Row = (&'static str, &'static str, &'static str);

#[rustfmt::skip]
const TYPOS: &[Row] = &[
    ("sluice: {mode: shadow}", "sluice: {mod: shadow}",
        r#"error: virtual host "payments", route "shadow-payments": metadata.filter_metadata.sluice has the unknown key "mod": write mode"#),
    ("sluice: {mode: shadow}", "sluice: {Mode: shadow}", r#"has the unknown key "Mode": write mode"#),
    ("filter_metadata: {sluice: {mode: shadow}}", "filter_metadata: {sluce: {mode: shadow}}", r#"has "sluce", which the filter does not read: write sluice"#),
    ("sluice: {mode: shadow}", "sluice: {mode: shdow}", r#"mode is "shdow", so the route is enforced: write enforce, shadow or "off""#),
    ("sluice: {mode: shadow}", "sluice: {mode: off}", r#"mode is false, as YAML reads a bare off: write "off" in quotes"#),
    ("sluice: {mode: shadow}", "sluice: {mode: 5}", "mode is no text"),
    ("              sluice:\n", "              sluise:\n", r#"typed_per_filter_config names "sluise", which is no filter of a listener: there are sluice.strip, sluice, envoy.filters.http.ext_authz"#),
    ("{sluice.mode: enforce}", "{sluice.mod: shadow}", r#"context_extensions has the unknown key "sluice.mod": write sluice.mode"#),
    ("{sluice.mode: enforce}", "{sluice.mode: watch}", r#"context_extensions sluice.mode is "watch""#),
    ("match: {path: /v1/payments}\n            route: {cluster: gateway,", "match: {path: /v1/payments}\n            route: {cluster: gateway, retry_policy: {retry_on: 5xx},",
        r#"warning: virtual host "payments", route "payments", rule "payments": retry_policy"#),
    ("match: {prefix: /}\n            route: {cluster: gateway,", "match: {prefix: /}\n            route: {cluster: gateway, hedge_policy: {},",
        r#"route "others", rule "authorizations": hedge_policy"#),
    ("encode_raw_headers: true", "encode_raw_headers: false", r#"route "native-payments": envoy.filters.http.ext_authz sends headers in which bytes may be replaced"#),
    ("pack_as_bytes: true", "pack_as_bytes: false", "set with_request_body.pack_as_bytes: true"),
    ("failure_mode_allow: false", "failure_mode_allow: true", "every payment passes uncounted"),
];

#[test]
fn each_slip_is_named_with_its_route_and_what_to_write() {
    for (from, to, expected) in TYPOS {
        let (envoy, routes) = (ENVOY.replacen(from, to, 1), ROUTES.replacen(from, to, 1));
        // A comment of the file may say the same; the last one is the route itself.
        let routes = if routes == ROUTES { routes } else { last_replaced(ROUTES, from, to) };
        assert!(envoy != ENVOY || routes != ROUTES, "the shipped files have no {from}");
        let found = findings(&[&envoy, &routes]);
        assert!(found.iter().any(|finding| finding.contains(expected)), "{to}: {found:#?}");
    }
}

fn last_replaced(text: &str, from: &str, to: &str) -> String {
    let (before, after) = text.rsplit_once(from).unwrap();
    format!("{before}{to}{after}")
}

#[test]
fn a_route_file_alone_is_checked_as_far_as_that_goes() {
    assert_eq!(findings(&[ROUTES]), Vec::<String>::new());
    let typo = last_replaced(ROUTES, "              sluice:\n", "              sluise:\n");
    assert!(findings(&[&typo])[0].contains("names \"sluise\""), "{:?}", findings(&[&typo]));
}
