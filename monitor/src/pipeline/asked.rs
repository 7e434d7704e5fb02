//! What others want of the pipeline: answers from its tables, to watch, and the recorder at the end.

use std::sync::Arc;

use super::Pipeline;
use crate::control::{self, Answer, Question, Tables, Topic};
use crate::recording::Recorder;
use crate::watchers::Hub;

impl Pipeline {
    /// Where those come in who watch live.
    pub fn watch_hub(&self) -> Arc<Hub> {
        Arc::clone(self.alerting.hub())
    }

    /// Answers a question that came over the control socket.
    pub fn answer(&self, question: Question) {
        let tables = Tables {
            cgroups: &self.cgroups,
            processes: &self.processes,
            names: &self.names,
            residents: self.namespaces.residents(),
            host: &self.host,
        };
        question.answer(|topic| match topic {
            Topic::Containers => Answer::Containers(control::containers(tables)),
            Topic::Top => Answer::Top(Box::new(control::top(tables, self.alerting.tallies()))),
            Topic::Capabilities => Answer::Capabilities(self.places()),
        });
    }

    /// Takes the recorder out, to end it.
    pub fn take_recorder(&mut self) -> Option<Recorder> {
        self.recorder.take()
    }
}
