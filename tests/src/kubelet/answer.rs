//! How a server answers.

/// How a stand-in answers a question for pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The list of pods, to those who may read it.
    Right,
    /// A list of no pods, as kubelet writes it: `"items":null`.
    Empty,
    /// The right status, and no JSON.
    Garbage,
    /// JSON that is no list of pods.
    AnotherKind,
    /// The first half of the list's text, as if it were all.
    Half,
    /// The first half of the list's text; then the connection ends.
    CutOff,
    /// 401 to everybody: no token is good.
    Refused,
    /// 403 to everybody: the token is good, and may not read pods.
    Forbidden,
    /// 500.
    Failed,
    /// The request is read, and no answer comes.
    Hang,
    /// The status comes, and then a byte from time to time: no single read takes long.
    Trickle,
}

impl Answer {
    /// All of them, with their names in the control file.
    pub const ALL: [(&'static str, Answer); 11] = [
        ("right", Answer::Right),
        ("empty", Answer::Empty),
        ("garbage", Answer::Garbage),
        ("another-kind", Answer::AnotherKind),
        ("half", Answer::Half),
        ("cut-off", Answer::CutOff),
        ("refused", Answer::Refused),
        ("forbidden", Answer::Forbidden),
        ("failed", Answer::Failed),
        ("hang", Answer::Hang),
        ("trickle", Answer::Trickle),
    ];

    /// Those from which nobody learns which pods there are.
    pub fn useless() -> impl Iterator<Item = Answer> {
        let all = Answer::ALL.into_iter().map(|(_, answer)| answer);
        all.filter(|answer| !matches!(answer, Answer::Right | Answer::Empty))
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Answer::ALL
            .iter()
            .find(|(_, answer)| *answer == self)
            .map_or("", |(name, _)| name)
    }

    /// The answer of that name.
    pub fn named(name: &str) -> Option<Answer> {
        Answer::ALL
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, answer)| *answer)
    }
}
