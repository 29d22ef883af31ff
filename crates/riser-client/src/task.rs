//! Tasks with owners: dropping the handle ends the task.

use tokio::task::JoinHandle;

/// A task that lives as long as its owner.
#[derive(Debug)]
pub(crate) struct Task(JoinHandle<()>);

impl Task {
    /// Starts a task.
    #[expect(clippy::disallowed_methods, reason = "the handle that owns the task is made right here")]
    pub(crate) fn start(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(future))
    }

    /// Waits for the task to end by itself.
    pub(crate) async fn ended(&mut self) {
        // It can only fail by a panic in the task, which the runtime has reported already.
        let _ = (&mut self.0).await;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
