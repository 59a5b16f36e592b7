//! A ledger with somebody between it and whoever uses it: for ledgers that fail, or kill the process, where a test wants it.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    Account, Accounts, Applied, Caller, Credit, Drawn, Entry, EntryFilter, FreeCall,
    FreeCallFilter, FreeCalls, FreeLimits, FreeSpend, GiveBack, Instances, Ledger, LetIn, Movement,
    NewEntry, OpenLimits, Opened, Retention, Standing, Transition,
};
use crate::error::Result;
use crate::payment::{Amount, ClientPubkey, PaymentInteraction, RequestEventId, Timestamp, Unit};

/// What the ledger is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// To write what stands for money, or decides about it. A request leads to the same number of these in every run.
    Write,
    /// To write what stands for none. These run by the clock or when there is time, so they cannot be numbered.
    WriteBeside,
    /// To read.
    Read,
}

/// Stands between a ledger and whoever uses it. Whatever does is a ledger.
pub(crate) trait Intercept: std::fmt::Debug + Send + Sync {
    /// The ledger behind.
    fn inner(&self) -> &Arc<dyn Ledger>;

    /// Does `work`, or does not.
    fn intercept<T: Send>(
        &self,
        step: Step,
        work: impl Future<Output = Result<T>> + Send,
    ) -> impl Future<Output = Result<T>> + Send;

    /// Whether this process still has its place among the instances.
    fn has_a_place(&self) -> bool {
        true
    }
}

#[async_trait]
impl<I: Intercept> Ledger for I {
    async fn open(&self, new: NewEntry, limits: OpenLimits) -> Result<Opened> {
        let work = self.inner().open(new, limits);
        self.intercept(Step::Write, work).await
    }

    async fn apply(
        &self,
        id: &RequestEventId,
        moves: Vec<Transition>,
        at: Timestamp,
    ) -> Result<Applied> {
        let work = self.inner().apply(id, moves, at);
        self.intercept(Step::Write, work).await
    }

    async fn claim_authorization(
        &self,
        caller: &Caller,
        interaction: PaymentInteraction,
        at: Timestamp,
    ) -> Result<Option<Entry>> {
        let work = self.inner().claim_authorization(caller, interaction, at);
        self.intercept(Step::Write, work).await
    }

    async fn standing(&self, caller: &Caller) -> Result<Standing> {
        self.intercept(Step::Read, self.inner().standing(caller))
            .await
    }

    async fn note_answered(&self, event: &RequestEventId, at: Timestamp) -> Result<bool> {
        let work = self.inner().note_answered(event, at);
        self.intercept(Step::Write, work).await
    }

    async fn note_let_in(&self, events: Vec<LetIn>) -> Result<()> {
        let work = self.inner().note_let_in(events);
        self.intercept(Step::WriteBeside, work).await
    }

    async fn let_in_since(&self, since: Timestamp) -> Result<Vec<LetIn>> {
        self.intercept(Step::Read, self.inner().let_in_since(since))
            .await
    }

    async fn prune(&self, retention: Retention) -> Result<usize> {
        let work = self.inner().prune(retention);
        self.intercept(Step::WriteBeside, work).await
    }

    async fn get(&self, id: &RequestEventId) -> Result<Option<Entry>> {
        self.intercept(Step::Read, self.inner().get(id)).await
    }

    async fn list(&self, filter: &EntryFilter) -> Result<Vec<Entry>> {
        self.intercept(Step::Read, self.inner().list(filter)).await
    }

    fn instances(&self) -> Option<&dyn Instances> {
        self.has_a_place().then(|| self.inner().instances())?
    }
}

#[async_trait]
impl<I: Intercept> FreeCalls for I {
    async fn note_free(&self, calls: Vec<FreeCall>) -> Result<()> {
        let work = self.inner().note_free(calls);
        self.intercept(Step::WriteBeside, work).await
    }

    async fn spend_free(&self, call: FreeCall, limits: FreeLimits) -> Result<FreeSpend> {
        let work = self.inner().spend_free(call, limits);
        self.intercept(Step::Write, work).await
    }

    async fn free_call(&self, event: &RequestEventId) -> Result<Option<FreeCall>> {
        self.intercept(Step::Read, self.inner().free_call(event))
            .await
    }

    async fn free_calls(&self, filter: &FreeCallFilter) -> Result<Vec<FreeCall>> {
        self.intercept(Step::Read, self.inner().free_calls(filter))
            .await
    }

    async fn forget_free(&self, before: Timestamp, keep: usize) -> Result<usize> {
        let work = self.inner().forget_free(before, keep);
        self.intercept(Step::WriteBeside, work).await
    }
}

#[async_trait]
impl<I: Intercept> Accounts for I {
    async fn draw(&self, new: NewEntry, at: Timestamp) -> Result<Drawn> {
        self.intercept(Step::Write, self.inner().draw(new, at))
            .await
    }

    async fn credit(&self, credit: Credit) -> Result<Account> {
        self.intercept(Step::Write, self.inner().credit(credit))
            .await
    }

    async fn give_back(
        &self,
        id: &RequestEventId,
        back: GiveBack,
        at: Timestamp,
    ) -> Result<Applied> {
        let work = self.inner().give_back(id, back, at);
        self.intercept(Step::Write, work).await
    }

    async fn take_back(&self, id: &RequestEventId, at: Timestamp) -> Result<Option<Amount>> {
        self.intercept(Step::Write, self.inner().take_back(id, at))
            .await
    }

    async fn account(&self, client: &ClientPubkey, unit: &Unit) -> Result<Option<Account>> {
        self.intercept(Step::Read, self.inner().account(client, unit))
            .await
    }

    async fn accounts(
        &self,
        after: Option<(ClientPubkey, Unit)>,
        limit: usize,
    ) -> Result<Vec<Account>> {
        self.intercept(Step::Read, self.inner().accounts(after, limit))
            .await
    }

    async fn movements(
        &self,
        client: &ClientPubkey,
        unit: &Unit,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Movement>> {
        let work = self.inner().movements(client, unit, after, limit);
        self.intercept(Step::Read, work).await
    }

    async fn latest_movements(
        &self,
        client: &ClientPubkey,
        unit: &Unit,
        limit: usize,
    ) -> Result<Vec<Movement>> {
        let work = self.inner().latest_movements(client, unit, limit);
        self.intercept(Step::Read, work).await
    }

    async fn expire_accounts(&self, since: Timestamp, at: Timestamp) -> Result<usize> {
        let work = self.inner().expire_accounts(since, at);
        self.intercept(Step::WriteBeside, work).await
    }
}
