//! What works in the background: purges that wait for their time, and warm-ups. It can be asked about and cancelled, and is remembered
//! for a while when it is over.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;

use super::answer::Refusal;
use crate::clock::Clock;

/// Tasks that wait or run. More would be a loop somewhere.
const MAX_OPEN: usize = 64;

/// Tasks that are over and can still be asked about.
const MAX_OVER: usize = 256;

/// Where a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    Running,
    Done,
    Failed,
    Cancelled,
}

/// What a task is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TaskKind {
    Purge,
    Warm,
}

/// All tasks, the newest first.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TaskList {
    pub tasks: Vec<TaskReport>,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct TaskReport {
    pub id: String,
    pub kind: TaskKind,
    pub state: TaskState,
    /// What it is to do, in words.
    pub about: String,
    /// Seconds since 1970.
    pub started: u64,
    /// The same. `null`: it is not over.
    pub ended: Option<u64>,
    /// How far it is, and at the end what came of it.
    pub progress: Value,
    /// Why it failed.
    pub error: Option<String>,
}

/// The tasks of this process.
#[derive(Debug)]
pub struct Tasks {
    clock: Clock,
    list: Mutex<List>,
}

#[derive(Debug, Default)]
struct List {
    number: u64,
    tasks: VecDeque<Task>,
}

#[derive(Debug)]
struct Task {
    report: TaskReport,
    cancel: watch::Sender<bool>,
}

/// The work's own end of a task.
#[derive(Debug)]
pub struct Work {
    tasks: Arc<Tasks>,
    id: String,
    cancelled: watch::Receiver<bool>,
}

impl Tasks {
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            list: Mutex::default(),
        }
    }

    fn now(&self) -> u64 {
        self.clock
            .now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs())
    }

    /// Has `work` done in the background. It is dropped when the task is cancelled.
    ///
    /// # Errors
    /// There are too many already.
    pub fn start<F>(
        self: &Arc<Self>,
        kind: TaskKind,
        about: String,
        work: impl FnOnce(Arc<Work>) -> F,
    ) -> Result<TaskReport, Refusal>
    where
        F: Future<Output = Result<Value, String>> + Send + 'static,
    {
        let (cancel, cancelled) = watch::channel(false);
        let report = {
            let mut list = self.list.lock();
            let open = |task: &&Task| task.report.state == TaskState::Running;
            if list.tasks.iter().filter(open).count() >= MAX_OPEN {
                return Err(Refusal::TooManyTasks);
            }
            list.number += 1;
            let report = TaskReport {
                // Not to be guessed from another process's.
                id: format!("{}-{:06x}", list.number, fastrand::u32(..1 << 24)),
                kind,
                state: TaskState::Running,
                about,
                started: self.now(),
                ended: None,
                progress: Value::Null,
                error: None,
            };
            list.tasks.push_front(Task {
                report: report.clone(),
                cancel,
            });
            list.forget();
            report
        };
        let work_end = Arc::new(Work {
            tasks: Arc::clone(self),
            id: report.id.clone(),
            cancelled: cancelled.clone(),
        });
        let future = work(Arc::clone(&work_end));
        let mut cancelled = cancelled;
        tokio::spawn(async move {
            let result = tokio::select! {
                result = future => Some(result),
                _ = cancelled.wait_for(|cancelled| *cancelled) => None,
            };
            let tasks = &work_end.tasks;
            let ended = tasks.now();
            tasks.change(&work_end.id, |report| {
                report.ended = Some(ended);
                match result {
                    Some(Ok(outcome)) => {
                        report.state = TaskState::Done;
                        report.progress = outcome;
                    }
                    Some(Err(error)) => {
                        report.state = TaskState::Failed;
                        report.error = Some(error);
                    }
                    None => report.state = TaskState::Cancelled,
                }
            });
        });
        Ok(report)
    }

    fn change(&self, id: &str, change: impl FnOnce(&mut TaskReport)) {
        let mut list = self.list.lock();
        if let Some(task) = list.tasks.iter_mut().find(|task| task.report.id == id) {
            change(&mut task.report);
        }
    }

    pub fn all(&self) -> Vec<TaskReport> {
        self.list.lock().tasks.iter().map(|task| task.report.clone()).collect()
    }

    /// # Errors
    /// There is none with that id.
    pub fn one(&self, id: &str) -> Result<TaskReport, Refusal> {
        let list = self.list.lock();
        let found = list.tasks.iter().find(|task| task.report.id == id);
        found.map(|task| task.report.clone()).ok_or_else(|| unknown(id))
    }

    /// Ends a task; what it has done stays done.
    ///
    /// # Errors
    /// There is none with that id, or it is over.
    pub fn cancel(&self, id: &str) -> Result<TaskReport, Refusal> {
        let mut list = self.list.lock();
        let Some(task) = list.tasks.iter_mut().find(|task| task.report.id == id) else {
            return Err(unknown(id));
        };
        if task.report.state != TaskState::Running {
            return Err(Refusal::Conflict(format!("The task {id:?} is over.")));
        }
        task.cancel.send_replace(true);
        task.report.state = TaskState::Cancelled;
        Ok(task.report.clone())
    }

    /// The process ends.
    pub fn cancel_all(&self) {
        for task in &self.list.lock().tasks {
            task.cancel.send_replace(true);
        }
    }
}

impl List {
    /// Lets the oldest go that are over.
    fn forget(&mut self) {
        let mut over = 0;
        self.tasks.retain(|task| {
            if task.report.state == TaskState::Running {
                return true;
            }
            over += 1;
            over <= MAX_OVER
        });
    }
}

impl Work {
    /// Says how far the work is.
    pub fn progress(&self, progress: Value) {
        self.tasks.change(&self.id, |report| report.progress = progress);
    }

    pub fn is_cancelled(&self) -> bool {
        *self.cancelled.borrow()
    }
}

fn unknown(id: &str) -> Refusal {
    Refusal::Unknown(format!(
        "There is no task {id:?}; those that are over are forgotten after a while."
    ))
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use serde_json::json;
    use tokio::sync::oneshot;

    use super::*;

    async fn until(tasks: &Tasks, id: &str, state: TaskState) -> TaskReport {
        loop {
            let report = tasks.one(id).unwrap();
            if report.state == state && report.ended.is_some() {
                return report;
            }
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_task_tells_how_far_it_is_and_how_it_ended() {
        let tasks = Arc::new(Tasks::new(Clock::new()));
        let (go, gone) = oneshot::channel::<()>();
        let report = tasks
            .start(TaskKind::Purge, "a".to_owned(), |work| async move {
                work.progress(json!({ "purged": 1 }));
                let _ = gone.await;
                Ok(json!({ "purged": 2 }))
            })
            .unwrap();
        while tasks.one(&report.id).unwrap().progress != json!({ "purged": 1 }) {
            tokio::task::yield_now().await;
        }
        go.send(()).unwrap();
        assert_eq!(until(&tasks, &report.id, TaskState::Done).await.progress["purged"], 2);
        assert!(matches!(tasks.cancel(&report.id), Err(Refusal::Conflict(_))));
        let failed = tasks
            .start(TaskKind::Warm, "b".to_owned(), |_| async { Err("no".to_owned()) })
            .unwrap();
        let failed = until(&tasks, &failed.id, TaskState::Failed).await;
        assert_eq!(failed.error.as_deref(), Some("no"));
    }

    #[tokio::test]
    async fn a_cancelled_task_does_no_more() {
        let tasks = Arc::new(Tasks::new(Clock::new()));
        let (alive, dropped) = oneshot::channel::<()>();
        let report = tasks
            .start(TaskKind::Warm, "a".to_owned(), |_| async move {
                let _alive = alive;
                pending().await
            })
            .unwrap();
        assert_eq!(tasks.cancel(&report.id).unwrap().state, TaskState::Cancelled);
        assert!(dropped.await.is_err());
        assert!(matches!(tasks.cancel("nobody"), Err(Refusal::Unknown(_))));
    }

    #[tokio::test]
    async fn there_are_only_so_many() {
        let tasks = Arc::new(Tasks::new(Clock::new()));
        let start = || tasks.start(TaskKind::Warm, String::new(), |_| pending());
        for _ in 0..MAX_OPEN {
            start().unwrap();
        }
        assert_eq!(start().unwrap_err(), Refusal::TooManyTasks);
        tasks.cancel_all();
        let ids: Vec<_> = tasks.all().into_iter().map(|task| task.id).collect();
        for id in ids {
            until(&tasks, &id, TaskState::Cancelled).await;
        }
        for _ in 0..2 * MAX_OVER {
            let id = start().unwrap().id;
            tasks.cancel(&id).unwrap();
        }
        assert!(tasks.all().len() <= MAX_OPEN + MAX_OVER);
    }
}
