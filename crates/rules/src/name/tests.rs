//! The table of frameworks: what each folds, with an example that was tried on it (the version is named), or read in its source.

use proptest::prelude::*;

use super::*;

/// Framework, the folding, the name in the rule, and one that the framework reads as it.
type Row = (&'static str, &'static str, &'static str, &'static str);

#[rustfmt::skip]
const FOLDS: &[Row] = &[
    // Case.
    ("ASP.NET", "case of parameters", "amount", "AMOUNT"),
    ("ASP.NET Core, System.Text.Json web defaults", "case of JSON keys", "order_no", "Order_No"),
    ("Go encoding/json", "case of JSON keys, by Unicode's simple folding: the Kelvin sign is k", "key", "\u{212a}ey"),
    ("Go encoding/json", "the same: the long s is s", "sum", "\u{17f}um"),
    ("Java equalsIgnoreCase", "dotted and dotless capital and small I are one letter", "merchant_id", "merchant_İd"),
    ("Java equalsIgnoreCase", "the same", "merchant_id", "merchant_ıd"),
    // Blanks around.
    ("PHP 8.2 parse_str", "blanks in front are dropped", "amount", " amount"),
    ("PHP 8.2 parse_str", "the same, several", "amount", "  amount"),
    ("Rack 2.2", "blanks behind a separator are dropped", "amount", " amount"),
    ("Java String.trim in a binder", "tab, line feed and NUL on either side", "amount", "\tamount"),
    ("Java String.trim in a binder", "the same", "amount", "\namount\r\n"),
    ("Java String.trim in a binder", "the same", "amount", "\0amount "),
    ("JavaScript and Python trim in a binder", "every blank of Unicode", "amount", "\u{a0}amount\u{2003}"),
    // NUL and what follows it.
    ("PHP 8.2 parse_str", "a name ends at NUL", "amount", "amount\0x"),
    // Dots, blanks and brackets to underscores.
    ("PHP 8.2 parse_str", "a dot is _", "order_no", "order.no"),
    ("PHP 8.2 parse_str", "a blank is _", "order_no", "order no"),
    ("PHP 8.2 parse_str", "a bracket that is not closed is _", "order_no", "order[no"),
    ("PHP 8.2 parse_str", "the same at the end", "amount_", "amount["),
    ("PHP 8.2 parse_str", "a dot in front is _", "_id", ".id"),
    // Brackets.
    ("PHP 8.2 parse_str", "a[] makes a list of a: amount=1&amount[]=2 is [2]", "amount", "amount[]"),
    ("PHP 8.2 parse_str", "a[x] makes a map of a", "amount", "amount[x]"),
    ("Rack 2.2, Rails 6.1", "the same, and what follows", "amount", "amount[x]y"),
    ("Rack 2.2", "brackets in front are dropped", "amount", "[amount]"),
    ("Rack 2.2", "the same", "amount", "[[amount"),
    ("Rack 2.2", "the same", "amount", "[][amount]"),
    ("Rack 2.2", "the same", "amount", "]amount"),
    ("Rack 2.2", "a bracket behind is dropped", "amount", "amount]"),
    ("qs 6, Express extended", "[a] is a", "amount", "[amount]"),
    ("qs 6, Express extended", "a[] and a[0] are a", "amount", "amount[0]"),
    ("Spring MVC", "a[0] is an element of a, a.b and a[b] are one property", "payment[amount]", "payment.amount"),
    ("ASP.NET Core", "a[b] is a.b", "payment.amount", "payment[amount]"),
    ("Rack 2.2, qs, PHP", "a map is replaced, or its value made a map", "payment[amount]", "payment[amount][x]"),
    // Byte order marks and bytes that are not text.
    (".NET StreamReader, Python utf-8-sig", "a mark in front of the body", "amount", "\u{feff}amount"),
    ("readers that skip what is not UTF-8", "a byte that is none", "amount", "amo\u{fffd}unt"),
    ("qs with ignoreQueryPrefix, URLSearchParams", "a question mark in front", "amount", "?amount"),
    // Styles of writing words.
    ("protobuf's JSON mapping (grpc-gateway, Envoy's transcoder)", "lowerCamelCase and the field's own name", "order_no", "orderNo"),
    ("djangorestframework-camel-case, pydantic populate_by_name", "the same", "merchant_id", "merchantId"),
    ("olive_branch on Rails, by the client's header", "dashes and camel case", "order_no", "order-no"),
    ("Spring 6.2, headers as properties", "Order-No is orderNo", "orderNo", "Order-No"),
];

/// Names that no framework of the table reads as the wanted one.
#[rustfmt::skip]
const KEPT: &[(&str, &str)] = &[
    ("amount", ""), ("amount", "amounts"), ("amount", "amoun"), ("amount", "_amount"), ("amount", ".amount"), ("amount", "-amount"),
    ("amount", "payment[amount]"), ("amount", "payment.amount"), ("amount", "x[amount"), ("amount", "\0"), ("amount", "[]"),
    ("amount", "x\0amount"), ("amount", "amount2"), ("amount", "am0unt"), ("id", "_id"), ("_id", "id"), ("order_no", "order"),
    ("order_no", "no"), ("payment[amount]", "payment[currency]"), ("payment[amount]", "amount"), ("amount", "résumé"),
    ("amount", "$amount"), ("amount", "@amount"), ("amount", "a"),
];

#[test]
fn x4_f4_each_name_folds_as_its_framework_has_it() {
    for (framework, what, wanted, name) in FOLDS {
        assert_ne!(wanted, name);
        assert!(Name::new(wanted).is_read_from(name), "{framework}: {what}: {name:?} is {wanted:?}");
    }
    for (wanted, name) in KEPT {
        assert!(!Name::new(wanted).is_read_from(name), "{name:?} is not {wanted:?}");
    }
    // A name is always read as itself, whatever its spelling in a rule.
    for name in ["amount", "payment[amount][]", "a.b.c", "_id", "İd", "x-merchant-id", "a b", "0"] {
        assert!(Name::new(name).is_read_from(name), "{name:?}");
    }
    // A name without a letter is only compared literally: everything would fold onto it.
    for name in ["[]", "\u{feff}"] {
        assert!(!Name::new(name).is_read_from("[]") && !Name::new(name).is_read_from(""), "{name:?}");
    }
}

/// What names are made of: letters in every spelling that folds, separators, what is dropped, and what ends a name.
const PIECES: [&str; 29] = [
    "a", "A", "m", "order", "ORDER", "no", "No", "id", "s", "S", "\u{17f}", "k", "\u{212a}", "i", "I", "\u{130}",
    "\u{131}", "\u{df}", "ss", "_", "-", ".", " ", "[", "]", "?", "\u{feff}", "\u{e9}", "\0",
];

fn names() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(PIECES.as_slice()), 0..6).prop_map(|pieces| pieces.concat())
}

proptest! {
    /// The quick tests never pass over a name that is compared in full as the wanted one.
    #[test]
    fn the_quick_tests_pass_over_no_name_that_is_meant(wanted in names(), name in names()) {
        let own = Name::new(&wanted);
        let mut firsts = Firsts::default();
        firsts.add(&own);
        let same = own.as_str() == name;
        if same || own.is_read_from(&name) {
            prop_assert!(own.may_be(name.as_bytes()) && own.may_begin(name.as_bytes()), "{wanted:?} {name:?}");
            prop_assert!(firsts.may_begin(name.as_bytes()), "{wanted:?} {name:?}");
        }
    }

    /// The same where the name is a spelling of the wanted one, which two names of chance seldom are.
    #[test]
    fn the_quick_tests_pass_over_no_spelling(wanted in names(), between in prop::collection::vec(0_usize..6, 1..12)) {
        const DROPPED: [&str; 6] = ["", "", "_", "-", " ", "."];
        let mut spelled = String::new();
        for (at, char) in wanted.chars().enumerate() {
            if at > 0 {
                spelled.push_str(DROPPED[between[at % between.len()]]);
            }
            if at % 2 == 0 { spelled.extend(char.to_uppercase()) } else { spelled.push(char) }
        }
        let own = Name::new(&wanted);
        let mut firsts = Firsts::default();
        firsts.add(&own);
        if own.is_read_from(&spelled) {
            prop_assert!(own.may_be(spelled.as_bytes()) && own.may_begin(spelled.as_bytes()), "{wanted:?} {spelled:?}");
            prop_assert!(firsts.may_begin(spelled.as_bytes()), "{wanted:?} {spelled:?}");
        }
    }
}
