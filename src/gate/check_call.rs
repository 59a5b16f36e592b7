//! Can this call succeed at all? Nobody is charged for an error that is known beforehand.

use super::Gate;
use super::door::Knock;
use super::resolve_price::guarded;
use crate::error::Result;
use crate::wire::{ErrorObject, INVALID_PARAMS_CODE};

impl Gate {
    /// Asks the hook. `true` if the call may go on; otherwise it has been answered, with `-32602`.
    pub(super) async fn check_call(&self, knock: &Knock) -> Result<bool> {
        let Some(check) = self.check.clone() else {
            return Ok(true);
        };
        let invocation = knock.invocation.clone();
        let asked = guarded(self.settings.price_timeout, "check_call", async move {
            check.objection(&invocation)
        });
        let Some(why) = asked.await? else {
            return Ok(true);
        };
        let error = ErrorObject::new(INVALID_PARAMS_CODE, why);
        self.answer_error(&knock.request.id, &knock.origin.reply_to, &error)
            .await;
        Ok(false)
    }
}
