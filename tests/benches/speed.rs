//! How long the work of the codec, the session, the registry and the verifiers takes: `cargo bench --bench speed`.
//!
//! Times move with the machine and with what else runs on it. What guards against a slower relay is the count of
//! instructions, in `instructions`.

mod work;

fn main() {
    divan::main();
}

#[divan::bench(args = work::all().into_iter().map(|work| work.name))]
fn work_of(bencher: divan::Bencher<'_, '_>, name: &str) {
    let prepare = work::named(name).expect("one of them").prepare;
    bencher.with_inputs(|| ()).bench_local_values({
        let mut once = prepare();
        move |()| once()
    });
}
