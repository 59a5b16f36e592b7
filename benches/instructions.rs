//! The hot path in small pieces, to be counted instruction by instruction: unlike time, that hardly depends on what else the
//! machine does.
//!
//! `benches/count-instructions` runs this under callgrind, twice for each piece with different numbers of repetitions, and
//! compares the difference with `benches/instructions.tsv`. Alone it says nothing: `cargo bench --bench instructions -- PIECE
//! TIMES` does the work and is silent.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a program that measures, and stops where it cannot go on"
)]

#[path = "support/pieces.rs"]
mod pieces;

use pieces::{PIECES, Pieces};

fn main() {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| arg != "--bench")
        .collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let pieces = Pieces::new();
    match words.as_slice() {
        ["--list"] => println!("{}", PIECES.join("\n")),
        [piece, times] => {
            // What is done once, such as the first use of a lock or of a cache, is done before.
            let times = times.parse().expect("how often");
            pieces.run(piece, times);
        }
        // That each works.
        _ => PIECES.iter().for_each(|piece| pieces.run(piece, 3)),
    }
}
