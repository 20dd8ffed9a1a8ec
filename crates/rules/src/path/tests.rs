//! X3: which spellings of a path reach a rule's handler behind common servers and frameworks; none may bypass the rule.

use super::*;

/// The expected result of a spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// It is decided with this capture (empty where the template has none).
    Read(&'static str),
    /// Gateways read it differently: 400.
    Refused,
    /// No common gateway reads it as the rule's path.
    Other,
}

use Expected::{Other, Read, Refused};

const PAYMENTS: &str = "/v1/payments";
const CAPTURED: &str = "/v1/merchants/{m}/payments";
const LAST: &str = "/v1/pay/{m}";

/// The software that reads it so, the rule's path, a spelling, and the expected result.
type Row = (&'static str, &'static str, &'static str, Expected);

#[rustfmt::skip]
const TABLE: &[Row] = &[
    ("every router", PAYMENTS, "/v1/payments", Read("")),
    ("every router", PAYMENTS, "/v1/payments?a=/x", Read("")),
    ("Express, Rails, Spring: a slash at the end", PAYMENTS, "/v1/payments/", Read("")),
    ("nginx merge_slashes, Rack, Tomcat: doubled slashes", PAYMENTS, "//v1//payments", Read("")),
    ("nginx merge_slashes, Rack, Tomcat: doubled slashes", PAYMENTS, "/v1//payments", Read("")),
    ("Express, ASP.NET, IIS: case", PAYMENTS, "/V1/Payments", Read("")),
    ("every server: percent escapes", PAYMENTS, "/v1/%70ayments", Read("")),
    ("every proxy: dot segments", PAYMENTS, "/v1/./x/../payments", Read("")),
    ("Apache, Tomcat: a dot segment at the end", PAYMENTS, "/v1/payments/.", Read("")),

    ("Rails (.:format)", PAYMENTS, "/v1/payments.json", Refused),
    ("Rails (.:format)", PAYMENTS, "/v1/payments.anything", Refused),
    ("Rails (.:format)", CAPTURED, "/v1/merchants/m1/payments.xml", Refused),
    ("Rails (.:format)", PAYMENTS, "/v1/payments%2ejson", Refused),
    ("Rails (.:format)", PAYMENTS, "/v1/payments%252ejson", Refused),
    ("Django REST format_suffix_patterns", PAYMENTS, "/v1/payments.json/", Refused),
    ("Spring before 5.3: suffix pattern", PAYMENTS, "/v1/payments.tar.gz", Refused),
    ("Struts, Apache MultiViews", "/v1/pay.action", "/v1/pay", Refused),
    ("Struts, Apache MultiViews", "/v1/pay.php", "/v1/pay.html", Refused),
    ("a method named behind a dot", "/api/payments.create", "/api/payments.list", Other),
    ("a method named behind a dot", "/api/payments.create", "/api/payments", Other),
    ("Rails, Django REST, Spring: a suffix on a capture", LAST, "/v1/pay/m1.json", Refused),
    ("Rails, Django REST, Spring: a suffix on a capture", LAST, "/v1/pay/shop.example", Refused),
    ("no suffix in the middle", CAPTURED, "/v1/merchants/shop.example/payments", Read("shop.example")),
    ("no suffix in the middle", PAYMENTS, "/v1.json/payments", Other),

    ("Symfony, Laravel, CodeIgniter: front controller", PAYMENTS, "/index.php/v1/payments", Refused),
    ("Symfony: another one", CAPTURED, "/app_dev.php/v1/merchants/m1/payments", Refused),
    ("PHP in a folder", PAYMENTS, "/public/index.php/v1/payments/", Refused),
    ("PHP, with a format", PAYMENTS, "/index.php/v1/payments.json", Refused),
    ("Apache MultiViews", PAYMENTS, "/index/v1/payments", Refused),
    ("CGI", PAYMENTS, "/cgi-bin/gateway/v1/payments", Refused),
    ("Rails under FastCGI", PAYMENTS, "/dispatch.fcgi/v1/payments", Refused),
    ("ColdFusion", PAYMENTS, "/index.cfm/v1/payments", Refused),
    ("Yii", PAYMENTS, "/index.php?r=v1/payments", Refused),
    ("Phalcon", PAYMENTS, "/?_url=/v1/payments", Refused),
    ("WordPress", PAYMENTS, "/?rest_route=%2Fv1%2Fpayments", Refused),
    ("CodeIgniter", PAYMENTS, "/index.php?/v1/payments", Refused),
    ("no front controller", PAYMENTS, "/login?r=/v1/payments", Other),
    ("no front controller", PAYMENTS, "/?next=/v1/payments", Other),
    ("no front controller", PAYMENTS, "/docs/v1/payments", Other),
    ("a script with what it is given", "/pay.php", "/pay.php/extra", Refused),
    ("a script by its folder", "/v1/payments", "/v1/payments/index.php", Refused),
    ("ASP.NET MVC: the default action", PAYMENTS, "/v1/payments/index", Refused),
    ("IIS: the default document", PAYMENTS, "/v1/payments/default.aspx", Refused),
    ("a folder by its script", "/v1/payments/index.php", "/v1/payments/", Refused),

    ("Windows: dots at the end", PAYMENTS, "/v1/payments.", Refused),
    ("Windows: dots in the path", PAYMENTS, "/v1./payments", Refused),
    ("Windows: blanks at the end", PAYMENTS, "/v1/payments%20", Refused),
    ("Windows: blanks at the end", PAYMENTS, "/v1/payments%20.%20", Refused),
    ("Django re_path, Starlette: `$` before a line feed", PAYMENTS, "/v1/payments%0a", Refused),
    ("servers in C: NUL", PAYMENTS, "/v1/payments%00.png", Refused),
    ("servers in C: NUL", PAYMENTS, "/v1/payments%00/x", Refused),
    ("servlets: path parameters", PAYMENTS, "/v1;a=b/payments;jsessionid=1", Refused),
    ("Tomcat: `..;`", PAYMENTS, "/v1/x/..;/payments", Refused),
    ("ASP.NET: a session in the path", PAYMENTS, "/(S(abc))/v1/payments", Refused),
    ("Windows, WHATWG URL: backslashes", PAYMENTS, "/v1\\payments", Refused),
    ("Windows, WHATWG URL: backslashes", PAYMENTS, "/v1%5cpayments", Refused),
    ("WSGI, PHP, Go: an escaped slash", PAYMENTS, "/v1%2Fpayments", Refused),
    ("decoding twice", PAYMENTS, "/v1/%2570ayments", Refused),
    ("decoding before the query is split off", PAYMENTS, "/v1/payments%3fa=b", Refused),
    ("decoding before the fragment is split off", PAYMENTS, "/v1/payments%23a", Refused),
    ("old IIS: overlong UTF-8", PAYMENTS, "/v1%c0%afpayments", Refused),
    ("old IIS: overlong UTF-8", PAYMENTS, "/v1/p%c1%a1yments", Refused),
    ("old IIS: overlong UTF-8", PAYMENTS, "/v1/%e0%81%b0ayments", Refused),
    ("IIS: %u", PAYMENTS, "/v1/%u0070ayments", Refused),
    ("NFKC: full width", PAYMENTS, "/v1/%ef%bd%90ayments", Refused),
    ("Python's re.IGNORECASE: long s", PAYMENTS, "/v1/payment%c5%bf", Refused),
    ("Python's re.IGNORECASE: dotless i", "/v1/capture/void", "/v1/capture/vo%c4%b1d", Refused),

    ("WHATWG URL with a base: read as a host", PAYMENTS, "//host/v1/payments", Refused),
    ("WHATWG URL with a base: read as a host", PAYMENTS, "/\\host/v1/payments", Refused),
    ("Express, Go: an absolute target", PAYMENTS, "http://host/v1/payments", Refused),
    ("Express, Go: an absolute target", PAYMENTS, "http://host/v1/other", Other),
    ("routers behind no normalisation", CAPTURED, "/v1/merchants/../payments", Refused),
    ("routers behind no normalisation", CAPTURED, "/v1/merchants/%2e/payments", Refused),
    ("Django's re_path behind no normalisation", CAPTURED, "/v1/merchants/%2e/pa%79ments%2f", Refused),
    ("Django's re_path behind no normalisation", CAPTURED, "/v1/merchants/../payments%2f", Refused),
    ("Django's re_path: decoded before it is split", CAPTURED, "/v1/merchants/a%5cb/payments%2f", Refused),
    ("Django's re_path: decoded before it is split", CAPTURED, "/v1/merchants/a%3fb/payments%2f", Refused),
    ("Django's re_path: decoded before it is split", CAPTURED, "/v1/merchants/a%00b/payments%2f", Refused),
    ("no payment for any router", CAPTURED, "/v1/merchants/%2e/reports%2f", Other),

    ("a capture is what all read", CAPTURED, "/v1/merchants/m%2D1/payments", Read("m-1")),
    ("a capture that some cut", CAPTURED, "/v1/merchants/m1;x/payments", Refused),
    ("a capture that some cut", CAPTURED, "/v1/merchants/m1%20/payments", Refused),
    ("a capture that some cut", CAPTURED, "/v1/merchants/m1./payments", Refused),
    ("a capture that some cut", CAPTURED, "/v1/merchants/a%2fb/payments", Refused),
    ("a capture that is not UTF-8", CAPTURED, "/v1/merchants/m%f1/payments", Refused),
    ("a malformed escape", CAPTURED, "/v1/merchants/m%zz/payments", Refused),

    ("no payment", PAYMENTS, "/v1/payment", Other),
    ("no payment", PAYMENTS, "/v1/payments-report", Other),
    ("no payment", PAYMENTS, "/v1/payments/1", Other),
    ("no payment", PAYMENTS, "/v1/payments/1.json", Other),
    ("no payment", PAYMENTS, "/v1", Other),
    ("no payment", PAYMENTS, "/", Other),
    ("no payment", PAYMENTS, "*", Other),
    ("no payment", PAYMENTS, "", Other),
    ("no payment", PAYMENTS, "/projects/a%2fb/%zz;x", Other),
    ("no payment", PAYMENTS, "/index.php", Other),
    ("no payment", CAPTURED, "/v1/merchants//payments", Other),
];

fn found(path: &str, spelling: &[u8], keeps_dots: bool) -> Match {
    Template::parse(path, 32, keeps_dots).unwrap().matches(&Readings::of(spelling))
}

#[test]
fn x3_every_spelling_that_a_router_takes_for_the_rules_path_is_decided_or_refused() {
    let mut wrong = Vec::new();
    for (who, path, spelling, expected) in TABLE {
        let got = match found(path, spelling.as_bytes(), false) {
            Match::No => Other,
            Match::Ambiguous | Match::Spelling => Refused,
            Match::Yes(captures) => match expected {
                Read(value) if captures.get("m").unwrap_or_default() == *value => *expected,
                Read(_) | Refused | Other => Read("another value"),
            },
        };
        if got != *expected {
            wrong.push(format!("{path} as {spelling} ({who}): {got:?}, not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Raw bytes without a percent escape.
#[test]
fn x3_raw_bytes_are_refused_where_they_may_be_the_rules_path() {
    for spelling in [&b"/v1/payments\xc2\xa0"[..], b"/v1/payments\xa0", b"/v1\xc0\xafpayments", b"/v1/payments\xff?"] {
        assert_eq!(found(PAYMENTS, spelling, false), Match::Ambiguous, "{spelling:?}");
    }
    assert_eq!(found(CAPTURED, b"/v1/merchants/m\xf1/payments", false), Match::Ambiguous);
    assert_eq!(found(PAYMENTS, b"/v1/pay\xffments", false), Match::No);
}

#[test]
fn x3_a_rule_may_keep_dots_in_its_last_capture() {
    let Match::Yes(captures) = found(LAST, b"/v1/pay/shop.example", true) else { panic!("it is the rule's path") };
    assert_eq!(captures.get("m"), Some("shop.example"));
    // Characters that servers drop at the end are still not a part of the value.
    assert_eq!(found(LAST, b"/v1/pay/shop.", true), Match::Ambiguous);
    assert_eq!(found(PAYMENTS, b"/v1/payments.json", true), Match::Spelling);
}

/// A path that is usual has the readings of every path.
#[test]
fn usual_paths_are_read_alike() {
    let paths = [
        "/v1/payments",
        "/v1/payments?x=/index.php",
        "/v1/payments#f",
        "/a:b@c$d&e+f=g,h~i-j_k",
        "/",
        "//v1",
        "/v1/",
        "/v1//x",
        "/v1/index",
        "/INDEX/x",
        "/cgi-bin/x",
        "/v1/pay.json",
        "/v1/./x",
        "/v1/../x",
        "/v1/%70",
        "/v1/a;b",
        "/v1\\x",
        "/v1/(x)",
        "/v1/x y",
        "/v1/\u{e9}",
        "v1/payments",
        "http://h/v1",
        "*",
        "",
        "?",
        "/?r=x",
        "/v1/payments?",
    ];
    let mut usual = 0;
    for path in paths {
        let Some(quick) = Readings::usual(path.as_bytes()) else { continue };
        let every = Readings::every(path.as_bytes());
        usual += 1;
        assert_eq!(
            (&quick.plain, &quick.unresolved, &quick.lenient),
            (&every.plain, &every.unresolved, &every.lenient)
        );
        assert_eq!((&quick.instead, quick.malformed), (&every.instead, every.malformed), "{path}");
        for template in
            ["/v1/payments", "/v1/{m}", "/v1/payments.json", "/{a}/index", "/payments", "/v1/PAYMENTS", "/{m}"]
        {
            let template = Template::parse(template, 32, false).unwrap();
            assert_eq!(template.matches(&quick), template.matches(&every), "{path}");
        }
    }
    assert_eq!(usual, 5);
}
