#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(wgpu_optim_fuzz::entries::training(bytes)));
