//! A ledger for tests whose time stands still: it goes on only when nobody waits for the database.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tollkeeper::Result;
use tollkeeper::ledger::{
    Account, Accounts, Applied, Caller, Credit, Crowd, Drawn, Entry, EntryFilter, FreeCall,
    FreeCallFilter, FreeCalls, FreeLimits, FreeSpend, GiveBack, Instances, Ledger, LetIn, Movement,
    NewEntry, OpenLimits, Opened, PostgresLedger, Retention, Standing, Taken, Transition,
};
use tollkeeper::payment::{
    Amount, ClientPubkey, PaymentInteraction, RequestEventId, Timestamp, Unit,
};

/// Asks a ledger that lives in another runtime, in real time.
#[derive(Debug)]
pub(crate) struct Patient {
    ledger: Arc<PostgresLedger>,
    there: Handle,
    /// Questions that are on their way, also those of a life that has ended meanwhile.
    asking: Arc<AtomicUsize>,
    joining: Arc<Mutex<()>>,
}

impl Patient {
    pub(crate) fn new(ledger: Arc<PostgresLedger>, there: Handle) -> Self {
        Self {
            ledger,
            there,
            asking: Arc::default(),
            joining: Arc::default(),
        }
    }

    /// Tokio's paused clock stands still while something blocks.
    async fn ask<T, F>(&self, question: impl FnOnce(Arc<PostgresLedger>) -> F + Send + 'static) -> T
    where
        T: Send + 'static,
        F: Future<Output = T>,
    {
        let (ledger, there, asking) = (
            Arc::clone(&self.ledger),
            self.there.clone(),
            Arc::clone(&self.asking),
        );
        asking.fetch_add(1, Ordering::SeqCst);
        tokio::task::spawn_blocking(move || {
            let answer = there.block_on(question(ledger));
            asking.fetch_sub(1, Ordering::SeqCst);
            answer
        })
        .await
        .unwrap()
    }
}

#[async_trait]
impl Ledger for Patient {
    async fn open(&self, new: NewEntry, limits: OpenLimits) -> Result<Opened> {
        self.ask(move |ledger| async move { Ledger::open(&*ledger, new, limits).await })
            .await
    }

    async fn apply(
        &self,
        id: &RequestEventId,
        moves: Vec<Transition>,
        at: Timestamp,
    ) -> Result<Applied> {
        let id = *id;
        self.ask(move |ledger| async move { Ledger::apply(&*ledger, &id, moves, at).await })
            .await
    }

    async fn claim_authorization(
        &self,
        caller: &Caller,
        interaction: PaymentInteraction,
        at: Timestamp,
    ) -> Result<Option<Entry>> {
        let caller = *caller;
        self.ask(move |ledger| async move {
            Ledger::claim_authorization(&*ledger, &caller, interaction, at).await
        })
        .await
    }

    async fn standing(&self, caller: &Caller) -> Result<Standing> {
        let caller = *caller;
        self.ask(move |ledger| async move { Ledger::standing(&*ledger, &caller).await })
            .await
    }

    async fn note_answered(&self, event: &RequestEventId, at: Timestamp) -> Result<bool> {
        let event = *event;
        self.ask(move |ledger| async move { Ledger::note_answered(&*ledger, &event, at).await })
            .await
    }

    async fn note_let_in(&self, events: Vec<LetIn>) -> Result<()> {
        self.ask(move |ledger| async move { Ledger::note_let_in(&*ledger, events).await })
            .await
    }

    async fn let_in_since(&self, since: Timestamp) -> Result<Vec<LetIn>> {
        self.ask(move |ledger| async move { Ledger::let_in_since(&*ledger, since).await })
            .await
    }

    async fn prune(&self, retention: Retention) -> Result<usize> {
        self.ask(move |ledger| async move { Ledger::prune(&*ledger, retention).await })
            .await
    }

    async fn get(&self, id: &RequestEventId) -> Result<Option<Entry>> {
        let id = *id;
        self.ask(move |ledger| async move { Ledger::get(&*ledger, &id).await })
            .await
    }

    async fn list(&self, filter: &EntryFilter) -> Result<Vec<Entry>> {
        let filter = filter.clone();
        self.ask(move |ledger| async move { Ledger::list(&*ledger, &filter).await })
            .await
    }

    fn instances(&self) -> Option<&dyn Instances> {
        Some(self)
    }
}

#[async_trait]
impl FreeCalls for Patient {
    async fn note_free(&self, calls: Vec<FreeCall>) -> Result<()> {
        self.ask(move |ledger| async move { ledger.note_free(calls).await })
            .await
    }

    async fn spend_free(&self, call: FreeCall, limits: FreeLimits) -> Result<FreeSpend> {
        self.ask(move |ledger| async move { ledger.spend_free(call, limits).await })
            .await
    }

    async fn free_call(&self, event: &RequestEventId) -> Result<Option<FreeCall>> {
        let event = *event;
        self.ask(move |ledger| async move { ledger.free_call(&event).await })
            .await
    }

    async fn free_calls(&self, filter: &FreeCallFilter) -> Result<Vec<FreeCall>> {
        let filter = filter.clone();
        self.ask(move |ledger| async move { ledger.free_calls(&filter).await })
            .await
    }

    async fn forget_free(&self, before: Timestamp, keep: usize) -> Result<usize> {
        self.ask(move |ledger| async move { ledger.forget_free(before, keep).await })
            .await
    }
}

#[async_trait]
impl Accounts for Patient {
    async fn draw(&self, new: NewEntry, at: Timestamp) -> Result<Drawn> {
        self.ask(move |ledger| async move { ledger.draw(new, at).await })
            .await
    }

    async fn credit(&self, credit: Credit) -> Result<Account> {
        self.ask(move |ledger| async move { ledger.credit(credit).await })
            .await
    }

    async fn give_back(
        &self,
        id: &RequestEventId,
        back: GiveBack,
        at: Timestamp,
    ) -> Result<Applied> {
        let id = *id;
        self.ask(move |ledger| async move { ledger.give_back(&id, back, at).await })
            .await
    }

    async fn take_back(&self, id: &RequestEventId, at: Timestamp) -> Result<Option<Amount>> {
        let id = *id;
        self.ask(move |ledger| async move { ledger.take_back(&id, at).await })
            .await
    }

    async fn account(&self, client: &ClientPubkey, unit: &Unit) -> Result<Option<Account>> {
        let client = *client;
        let unit = unit.clone();
        self.ask(move |ledger| async move { ledger.account(&client, &unit).await })
            .await
    }

    async fn accounts(
        &self,
        after: Option<(ClientPubkey, Unit)>,
        limit: usize,
    ) -> Result<Vec<Account>> {
        self.ask(move |ledger| async move { ledger.accounts(after, limit).await })
            .await
    }

    async fn movements(
        &self,
        client: &ClientPubkey,
        unit: &Unit,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Movement>> {
        let client = *client;
        let unit = unit.clone();
        self.ask(move |ledger| async move { ledger.movements(&client, &unit, after, limit).await })
            .await
    }

    async fn latest_movements(
        &self,
        client: &ClientPubkey,
        unit: &Unit,
        limit: usize,
    ) -> Result<Vec<Movement>> {
        let client = *client;
        let unit = unit.clone();
        self.ask(move |ledger| async move { ledger.latest_movements(&client, &unit, limit).await })
            .await
    }

    async fn expire_accounts(&self, since: Timestamp, at: Timestamp) -> Result<usize> {
        self.ask(move |ledger| async move { ledger.expire_accounts(since, at).await })
            .await
    }
}

#[async_trait]
impl Instances for Patient {
    /// A process that is gone writes no more. What the last life was still asking for has happened, or not, before the next begins.
    async fn join(&self) -> Result<()> {
        let (asking, joining) = (Arc::clone(&self.asking), Arc::clone(&self.joining));
        let (ledger, there) = (Arc::clone(&self.ledger), self.there.clone());
        let join = async move {
            // In this order, should a life have ended before it had joined.
            let _turn = joining.lock().await;
            while asking.load(Ordering::SeqCst) > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Instances::join(&*ledger).await
        };
        tokio::task::spawn_blocking(move || there.block_on(join))
            .await
            .unwrap()
    }

    async fn leave(&self) -> Result<()> {
        self.ask(move |ledger| async move { Instances::leave(&*ledger).await })
            .await
    }

    async fn take(&self, event: RequestEventId) -> Result<Taken> {
        self.ask(move |ledger| async move { Instances::take(&*ledger, event).await })
            .await
    }

    async fn inherit(&self, limit: usize) -> Result<Vec<Entry>> {
        self.ask(move |ledger| async move { Instances::inherit(&*ledger, limit).await })
            .await
    }

    async fn waiting_of(&self, client: &ClientPubkey) -> Result<Vec<Entry>> {
        let client = *client;
        self.ask(move |ledger| async move { Instances::waiting_of(&*ledger, &client).await })
            .await
    }

    async fn holds(&self) -> bool {
        self.ask(move |ledger| async move { Instances::holds(&*ledger).await })
            .await
    }

    fn is_lost(&self) -> bool {
        Instances::is_lost(&*self.ledger)
    }

    fn crowd(&self) -> Crowd {
        Instances::crowd(&*self.ledger)
    }
}
