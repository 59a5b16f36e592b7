//! What a run does: printed when it fails, and played again with `TOLLKEEPER_CRASH_SCRIPT`.

use serde::{Deserialize, Serialize};

/// The lifecycles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Lifecycle {
    Transparent,
    ExplicitGating,
}

/// The kinds of points at which `serve` kills itself.
pub(crate) const KINDS: [&str; 4] = ["write-before", "write-after", "send-before", "send-after"];

/// One run, from the first call to balanced books.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Script {
    pub(crate) lifecycle: Lifecycle,
    /// How many buyers call at the same time, once each.
    pub(crate) buyers: u32,
    /// All of them under one key.
    pub(crate) one_client: bool,
    /// All of them under one key and with the very same call: each of their payments may serve any of them.
    pub(crate) same_call: bool,
    /// What they say is wrapped.
    pub(crate) encrypted: bool,
    /// How long the tool works.
    pub(crate) busy_ms: u64,
    /// How long a buyer takes to pay.
    pub(crate) pay_ms: u64,
    /// Where each process in turn dies: `KIND:N`, or `kill:MS` after it was ready. The one after the last lives.
    pub(crate) deaths: Vec<String>,
}

impl Script {
    pub(crate) fn new(lifecycle: Lifecycle, buyers: u32, deaths: &[&str]) -> Self {
        Self {
            lifecycle,
            buyers,
            one_client: false,
            same_call: false,
            encrypted: false,
            busy_ms: 0,
            pay_ms: 0,
            deaths: deaths.iter().map(ToString::to_string).collect(),
        }
    }

    /// The script of this seed: always the same one.
    pub(crate) fn random(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let lifecycle = *dice.one_of(&[Lifecycle::Transparent, Lifecycle::ExplicitGating]);
        let buyers = *dice.one_of(&[1, 2, 3, 3, 4, 6, 8]);
        let deaths = (0..*dice.one_of(&[1, 1, 2, 2, 3])).map(|_| match dice.below(6) {
            0 => format!("kill:{}", dice.below(500)),
            _ => format!(
                "{}:{}",
                dice.one_of(&KINDS),
                1 + dice.below(3 * u64::from(buyers) + 2)
            ),
        });
        Self {
            deaths: deaths.collect(),
            lifecycle,
            buyers,
            one_client: dice.below(2) == 0,
            same_call: dice.below(5) == 0,
            encrypted: dice.below(2) == 0,
            busy_ms: *dice.one_of(&[0, 0, 30, 150]),
            pay_ms: *dice.one_of(&[0, 0, 50, 300]),
        }
    }
}

/// SplitMix64: small, and the same everywhere.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % most
    }

    fn one_of<'t, T>(&mut self, them: &'t [T]) -> &'t T {
        &them[usize::try_from(self.below(them.len() as u64)).unwrap()]
    }
}
