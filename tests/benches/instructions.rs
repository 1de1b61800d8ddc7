//! What the work of the codec, the session and the registry costs, counted and not timed: instructions, allocations, and
//! bytes written to the heap, for each time it is done. The counts are compared with those in `instructions.toml`, and
//! more of any of them is a failure: `cargo bench --bench instructions`, and with `-- --record` they are written anew.
//!
//! Valgrind counts: callgrind the instructions, dhat the heap. Each piece of work is run for two different numbers of
//! times, and the difference counts, so that what it takes to get ready does not. Instructions depend on the compiler and
//! the C library, so each pair has its own figures; the heap hardly does, so a pair without figures is held to another's.

mod work;

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use work::{Count, Work};

/// The work is done so many times, and so many times more.
const FEW: u32 = 200;
const MORE: u32 = 1000;

/// Each count is the least of so many, where two threads do not meet in the same places every time.
const ROUNDS: usize = 2;

/// A count may be so much more than recorded. From run to run instructions differ by 0.3 % where there are two threads,
/// from one processor to another by what `memcpy` is chosen; an allocation or a copy more shows on the heap, which is
/// the same everywhere.
const INSTRUCTIONS_OVER: f64 = 0.02;
const HEAP_OVER: f64 = 0.01;

/// The same for figures of another compiler or C library.
const HEAP_OVER_ELSEWHERE: f64 = 0.10;

/// Figures that are better by this much should be recorded, so that they stay so good.
const BETTER: f64 = 0.05;

/// What a piece of work costs each time.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cost {
    instructions: f64,
    allocations: f64,
    heap_bytes_written: f64,
}

/// Each piece of work by its name.
type Costs = BTreeMap<String, Cost>;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["--work", name, times] => do_work(name, times.parse().expect("a number")),
        // So `cargo test --benches` calls every bench, which is no time to count.
        [] | ["--test"] => ExitCode::SUCCESS,
        ["--bench"] => compare(),
        ["--record", "--bench"] | ["--bench", "--record"] => record(),
        _ => {
            eprintln!("cargo bench --bench instructions [-- --record]");
            ExitCode::from(2)
        }
    }
}

fn do_work(name: &str, times: u32) -> ExitCode {
    let mut once = (work::named(name).expect("a known piece of work").prepare)();
    for _ in 0..times {
        once();
    }
    ExitCode::SUCCESS
}

fn compare() -> ExitCode {
    let recorded = read_baseline();
    let toolchain = toolchain();
    let own = recorded.get(&toolchain);
    let Some(base) = own.or_else(|| recorded.values().next_back()) else {
        eprintln!("{} has no figures; {HOW_TO_RECORD}", baseline().display());
        return ExitCode::FAILURE;
    };
    println!("{toolchain}");
    if own.is_none() {
        println!(
            "has no figures of its own, so instructions are not compared, and the heap with another's; {HOW_TO_RECORD}"
        );
    }
    let (mut worse, mut better) = (Vec::new(), false);
    for work in counted() {
        let cost = measure(&work);
        println!("{:<42} {}", work.name, shown(cost));
        let Some(&before) = base.get(work.name) else {
            worse.push(format!("{}: is not recorded", work.name));
            continue;
        };
        let heap_over = if own.is_some() {
            HEAP_OVER
        } else {
            HEAP_OVER_ELSEWHERE
        };
        let counts = [
            (
                "instructions",
                cost.instructions,
                before.instructions,
                INSTRUCTIONS_OVER,
            ),
            (
                "allocations",
                cost.allocations,
                before.allocations,
                heap_over,
            ),
            (
                "bytes written to the heap",
                cost.heap_bytes_written,
                before.heap_bytes_written,
                heap_over,
            ),
        ];
        for (what, now, before, over) in counts {
            if what == "instructions" && own.is_none() {
                continue;
            }
            // A tenth of one is rounding.
            if now > before * (1.0 + over) + 0.1 {
                worse.push(format!(
                    "{}: {now:.1} {what}, recorded {before:.1}",
                    work.name
                ));
            }
            better |= own.is_some() && now < before * (1.0 - BETTER) - 0.1;
        }
    }
    if better {
        println!("some of it has become cheaper; so that it stays so, {HOW_TO_RECORD}");
    }
    if worse.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("\ndearer than recorded in {}:", baseline().display());
    for one in &worse {
        eprintln!("  {one}");
    }
    eprintln!(
        "\nWhere it goes: valgrind --tool=callgrind target/release/deps/instructions-… --work '<name>' 1000, then \
         callgrind_annotate\nIf it is worth it, {HOW_TO_RECORD}, and say in the commit what it buys."
    );
    ExitCode::FAILURE
}

/// The work whose count can be held to a record.
fn counted() -> Vec<Work> {
    let mut all = work::all();
    all.retain(|work| work.count != Count::Varies);
    all
}

const HOW_TO_RECORD: &str = "record them with: cargo bench --bench instructions -- --record";

fn record() -> ExitCode {
    let mut recorded = read_baseline();
    let costs: Costs = counted()
        .iter()
        .map(|work| {
            let cost = measure(work);
            println!("{:<42} {}", work.name, shown(cost));
            (work.name.to_owned(), cost)
        })
        .collect();
    recorded.insert(toolchain(), costs);
    fs::write(baseline(), written(&recorded)).expect("the baseline is written");
    ExitCode::SUCCESS
}

fn shown(cost: Cost) -> String {
    format!(
        "{:>9.1} instructions {:>6.2} allocations {:>9.1} bytes written to the heap",
        cost.instructions, cost.allocations, cost.heap_bytes_written
    )
}

// ---- counting ----------------------------------------------------------------------------------------------------------

fn measure(work: &Work) -> Cost {
    let least = |count: fn(&str, u32) -> [f64; 2]| {
        let rounds = match work.count {
            Count::Same => 1,
            _ => ROUNDS,
        };
        let rounds = (0..rounds).map(|_| {
            let (few, more) = (count(work.name, FEW), count(work.name, FEW + MORE));
            [0, 1].map(|at| (more[at] - few[at]) / f64::from(MORE))
        });
        rounds.fold([f64::INFINITY; 2], |least, round| {
            [least[0].min(round[0]), least[1].min(round[1])]
        })
    };
    let [instructions, _] = least(instructions);
    let [allocations, heap_bytes_written] = least(heap);
    Cost {
        instructions,
        allocations,
        heap_bytes_written,
    }
}

fn instructions(name: &str, times: u32) -> [f64; 2] {
    let told = valgrind(
        &["--tool=callgrind", "--callgrind-out-file=/dev/null"],
        name,
        times,
    );
    [number_after(&told, "Collected :"), 0.0]
}

/// Allocations, and bytes written to the heap.
fn heap(name: &str, times: u32) -> [f64; 2] {
    let told = valgrind(&["--tool=dhat", "--dhat-out-file=/dev/null"], name, times);
    [
        number_after(&told, "bytes in"),
        number_after(&told, "Writes:"),
    ]
}

/// The number behind the first `words`.
fn number_after(told: &str, words: &str) -> f64 {
    let number = told.split_once(words).and_then(|(_, rest)| {
        let digits: String = rest
            .trim_start()
            .chars()
            .take_while(|c| !c.is_whitespace())
            .collect();
        digits.replace(',', "").parse().ok()
    });
    number.unwrap_or_else(|| panic!("valgrind says no number after {words:?}:\n{told}"))
}

/// Does the work under valgrind, and gives what that says.
fn valgrind(tool: &[&str], name: &str, times: u32) -> String {
    let own = env::current_exe().expect("this program has a path");
    let done = Command::new("valgrind")
        .args(tool)
        .arg(own)
        .args(["--work", name, &times.to_string()])
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("valgrind cannot be run ({error}); tests/run installs it"));
    let told = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{name}: {}\n{told}", done.status);
    told
}

/// The compiler and the C library, which decide how many instructions the same work is.
fn toolchain() -> String {
    let rustc = said_by(Command::new("rustc").arg("-vV"));
    let line = |key| {
        rustc
            .lines()
            .find_map(|line: &str| line.strip_prefix(key))
            .unwrap_or("?")
    };
    let libc = said_by(Command::new("getconf").arg("GNU_LIBC_VERSION"));
    format!(
        "rustc {} {}, {}",
        line("release: "),
        line("host: "),
        libc.trim()
    )
}

fn said_by(command: &mut Command) -> String {
    let done = command.output();
    done.map_or_else(
        |error| error.to_string(),
        |done| String::from_utf8_lossy(&done.stdout).into_owned(),
    )
}

// ---- the baseline ------------------------------------------------------------------------------------------------------

fn baseline() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/benches/instructions.toml")
}

/// The costs by toolchain.
fn read_baseline() -> BTreeMap<String, Costs> {
    let text = fs::read_to_string(baseline()).unwrap_or_default();
    let table: toml::Table = text
        .parse()
        .unwrap_or_else(|e| panic!("instructions.toml: {e}"));
    let costs = |works: &toml::Value| -> Costs {
        let works = works.as_table().into_iter().flatten();
        let cost = |(name, cost): (&String, &toml::Value)| {
            let number = |key: &str| cost.get(key).and_then(toml::Value::as_float).unwrap_or(0.0);
            let cost = Cost {
                instructions: number("instructions"),
                allocations: number("allocations"),
                heap_bytes_written: number("heap_bytes_written"),
            };
            (name.clone(), cost)
        };
        works.map(cost).collect()
    };
    table
        .iter()
        .map(|(toolchain, works)| (toolchain.clone(), costs(works)))
        .collect()
}

fn written(recorded: &BTreeMap<String, Costs>) -> String {
    let mut text = "# What each piece of work costs, by compiler and C library. Written by\n\
                    # cargo bench --bench instructions -- --record\n"
        .to_owned();
    for (toolchain, costs) in recorded {
        // A String takes everything.
        let _ = write!(text, "\n[\"{toolchain}\"]\n");
        for (name, cost) in costs {
            let _ = writeln!(
                text,
                "\"{name}\" = {{ instructions = {:.1}, allocations = {:.2}, heap_bytes_written = {:.1} }}",
                cost.instructions, cost.allocations, cost.heap_bytes_written
            );
        }
    }
    text
}
