//! A process without Envoy's functions, as an Envoy before 1.40 is: the module refuses to be loaded.

use sluice_filter_native::abi::hooks::envoy_dynamic_module_on_program_init;

#[test]
fn a_process_without_the_abi_is_refused() {
    // Envoy unloads a module that returns no version, and refuses its configuration.
    assert!(envoy_dynamic_module_on_program_init().is_null());
}
