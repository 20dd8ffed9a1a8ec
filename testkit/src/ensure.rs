//! Assertions that return instead of panicking, so that a failing row can say in which table it stands.

/// Returns a failure with the place and the values where two values differ.
#[macro_export]
macro_rules! ensure_eq {
    ($is:expr, $expected:expr $(, $($what:tt)+)?) => {
        match (&$is, &$expected) {
            (is, expected) => if *is != *expected {
                let what: &[String] = &[$(format!($($what)+))?];
                let what = what.concat();
                let place = concat!(file!(), ":", line!());
                return Err($crate::Failure::new(format!("{place}: is {is:?}, expected {expected:?} {what}")));
            }
        }
    };
}

/// Returns a failure with the place where a condition does not hold.
#[macro_export]
macro_rules! ensure {
    ($holds:expr, $($what:tt)+) => {
        match $holds {
            true => {}
            false => {
                let place = concat!(file!(), ":", line!());
                return Err($crate::Failure::new(format!("{place}: {}", format!($($what)+))));
            }
        }
    };
}
