//! An rmcp client's view of a [`MessageChannel`].

use std::future::Future;
use std::sync::Arc;

use ::rmcp::RoleClient;
use ::rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use ::rmcp::transport::Transport;

use super::{from_rmcp, to_rmcp};
use crate::error::Error;
use crate::transport::MessageChannel;
use crate::wire::{ErrorObject, Message, Response, SERVER_ERROR_CODE};

/// Lets any rmcp client speak through a [`MessageChannel`], for example through a paying client:
/// `handler.serve(RmcpClientTransport::new(channel)).await`.
#[derive(Debug, Clone)]
pub struct RmcpClientTransport(Arc<dyn MessageChannel>);

impl RmcpClientTransport {
    /// A transport over `channel`.
    #[must_use]
    pub fn new(channel: Arc<dyn MessageChannel>) -> Self {
        Self(channel)
    }
}

impl Transport<RoleClient> for RmcpClientTransport {
    type Error = Error;

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleClient>,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        let channel = Arc::clone(&self.0);
        async move { channel.send(from_rmcp::<RoleClient>(&item)?).await }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        loop {
            let message = self.0.recv().await?;
            match (to_rmcp::<RoleClient>(&message), message) {
                (Ok(message), _) => return Some(message),
                // Whoever waits for this answer must not wait for ever.
                (Err(error), Message::Response(response)) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "an answer that rmcp cannot read"
                    );
                    let unreadable =
                        ErrorObject::new(SERVER_ERROR_CODE, "The answer cannot be read");
                    let answer = Response::from_error(response.id, &unreadable).into();
                    if let Ok(answer) = to_rmcp::<RoleClient>(&answer) {
                        return Some(answer);
                    }
                }
                (Err(error), _) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "skipped a message that rmcp cannot read"
                ),
            }
        }
    }

    async fn close(&mut self) -> Result<(), Error> {
        self.0.close().await;
        Ok(())
    }
}
