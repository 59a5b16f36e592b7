//! The binary. Everything it does is in [`tollkeeper::gateway`].

use std::process::ExitCode;

fn main() -> ExitCode {
    tollkeeper::gateway::main()
}
