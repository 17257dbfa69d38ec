//! The tabs of the dashboard.

/// A tab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RemoteTab {
    Jobs,
    Experiments,
    Services,
    Orphans,
    Strays,
    Folders,
    Archive,
}

impl RemoteTab {
    /// The tabs that experimaestro's server reports on.
    pub(super) const OF_SERVER: [RemoteTab; 5] = [
        RemoteTab::Jobs,
        RemoteTab::Experiments,
        RemoteTab::Services,
        RemoteTab::Orphans,
        RemoteTab::Strays,
    ];

    /// The tabs that `xpmfs` there reports on.
    pub(super) const OF_XPMFS: [RemoteTab; 2] = [RemoteTab::Folders, RemoteTab::Archive];

    pub(super) fn title(self) -> &'static str {
        match self {
            RemoteTab::Jobs => "Jobs",
            RemoteTab::Experiments => "Experiments",
            RemoteTab::Services => "Services",
            RemoteTab::Orphans => "Orphans",
            RemoteTab::Strays => "Stray jobs",
            RemoteTab::Folders => "Folders",
            RemoteTab::Archive => "Archive",
        }
    }
}
