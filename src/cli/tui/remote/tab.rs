//! The tabs of the dashboard.

/// A tab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RemoteTab {
    Jobs,
    Experiments,
    Services,
    Orphans,
    Strays,
}

impl RemoteTab {
    pub(super) const ALL: [RemoteTab; 5] = [
        RemoteTab::Jobs,
        RemoteTab::Experiments,
        RemoteTab::Services,
        RemoteTab::Orphans,
        RemoteTab::Strays,
    ];

    pub(super) fn title(self) -> &'static str {
        match self {
            RemoteTab::Jobs => "Jobs",
            RemoteTab::Experiments => "Experiments",
            RemoteTab::Services => "Services",
            RemoteTab::Orphans => "Orphans",
            RemoteTab::Strays => "Stray jobs",
        }
    }
}
