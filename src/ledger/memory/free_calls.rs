//! The records of free calls, in memory.

use std::collections::HashMap;

use async_trait::async_trait;

use super::MemoryLedger;
use crate::error::Result;
use crate::ledger::free_calls::day_of;
use crate::ledger::{FreeCall, FreeCallFilter, FreeCalls, FreeLimits, FreeSpend};
use crate::payment::{ClientPubkey, RequestEventId, Timestamp};

/// The records, and what was counted on which day.
#[derive(Debug, Default)]
pub(super) struct FreeBooks {
    records: HashMap<RequestEventId, FreeCall>,
    of_client: HashMap<(String, u64, ClientPubkey), u32>,
    of_all: HashMap<(String, u64), u32>,
}

impl FreeBooks {
    pub(super) fn holds(&self, event: &RequestEventId) -> bool {
        self.records.contains_key(event)
    }
}

#[async_trait]
impl FreeCalls for MemoryLedger {
    async fn note_free(&self, calls: Vec<FreeCall>) -> Result<()> {
        let mut free = self.free();
        for call in calls {
            free.records.entry(call.event).or_insert(call);
        }
        Ok(())
    }

    async fn spend_free(&self, call: FreeCall, limits: FreeLimits) -> Result<FreeSpend> {
        let mut free = self.free();
        if free.holds(&call.event) {
            return Ok(FreeSpend::Already);
        }
        let day = day_of(call.at);
        let of_client = (call.by.clone(), day, call.client);
        let of_all = (call.by.clone(), day);
        let nth = free.of_client.get(&of_client).copied().unwrap_or_default();
        let nth_of_all = free.of_all.get(&of_all).copied().unwrap_or_default();
        if nth >= limits.per_client {
            return Ok(FreeSpend::UsedUp);
        }
        if nth_of_all >= limits.total {
            return Ok(FreeSpend::AllUsedUp);
        }
        free.of_client.insert(of_client, nth + 1);
        free.of_all.insert(of_all, nth_of_all + 1);
        free.records.insert(call.event, call);
        Ok(FreeSpend::Spent { nth: nth + 1 })
    }

    async fn free_call(&self, event: &RequestEventId) -> Result<Option<FreeCall>> {
        Ok(self.free().records.get(event).cloned())
    }

    async fn free_calls(&self, filter: &FreeCallFilter) -> Result<Vec<FreeCall>> {
        let mut listed: Vec<FreeCall> = self
            .free()
            .records
            .values()
            .filter(|call| filter.client.is_none_or(|client| client == call.client))
            .filter(|call| {
                filter
                    .after
                    .is_none_or(|after| (call.at, call.event) > after)
            })
            .cloned()
            .collect();
        listed.sort_by_key(|call| (call.at, call.event));
        listed.truncate(filter.limit);
        Ok(listed)
    }

    async fn forget_free(&self, before: Timestamp, keep: usize) -> Result<usize> {
        let mut free = self.free();
        let records = free.records.len();
        free.records.retain(|_, call| call.at >= before);
        free.of_client
            .retain(|(_, day, _), _| *day >= day_of(before));
        free.of_all.retain(|(_, day), _| *day >= day_of(before));
        if free.records.len() > keep {
            let mut oldest: Vec<_> = free
                .records
                .values()
                .map(|call| (call.at, call.event))
                .collect();
            oldest.sort_unstable();
            for (_, event) in oldest.iter().take(oldest.len() - keep) {
                free.records.remove(event);
            }
        }
        Ok(records - free.records.len())
    }
}
