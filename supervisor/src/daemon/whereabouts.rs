//! Where the VMs of this host are: what stands under each name, and what may happen to it next.
//!
//! One map, under the host's one lock, and no processes: each method is a step that is taken whole or refused. Whoever
//! works on a VM without the lock (makes it, ends it, moves it) has taken a step before, which keeps others away, and
//! takes another one at the end.

use super::disks::Claim;
use super::error::HostError;
use quasar_api::VmView;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A VM that runs on another host while its network's way out is here.
#[derive(Clone, Debug)]
pub struct Away {
    /// Where.
    pub at: String,
    /// How it was listed last.
    pub view: Box<VmView>,
}

/// A journey whose end is not known here: the VM may run elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// Where it may run.
    pub at: String,
    /// With the same disks as here.
    pub shared_disk: bool,
}

/// What ties a VM that is listed to this host.
#[derive(Debug)]
enum Bond {
    /// It comes, and does not run here yet.
    Arriving {
        /// It comes home: so it was listed, and is listed again when it does not arrive.
        away: Option<Away>,
    },
    /// It is here, whether it runs or not.
    Settled,
    /// It was handed over to another host. Whether its network `kept` its way out here.
    HandedOver { kept: bool },
    /// It was, and nobody here knows whether it runs there.
    Doubtful { doubt: Doubt, kept: bool },
    /// It is on its way off the list: its disks and directory may go at any moment.
    Leaving { was: Box<Bond> },
}

/// What stands under a name.
#[derive(Debug)]
pub enum Whereabouts<T, J> {
    /// It is being made: nothing is known of it but the disks that it takes, and where it ran, when it comes home.
    Making {
        /// Its disks.
        claims: Vec<Claim>,
        /// Where it is until then.
        away: Option<Away>,
    },
    /// It had stopped and is being started again.
    Restarting {
        /// Its disks.
        claims: Vec<Claim>,
        /// As what it stands here when that fails.
        before: Arc<T>,
        /// How it is shown meanwhile.
        view: Box<VmView>,
    },
    /// It is here.
    Here(Here<T, J>),
    /// It runs on another host.
    Away(Away),
}

/// A VM that is here.
#[derive(Debug)]
pub struct Here<T, J> {
    vm: Arc<T>,
    bond: Bond,
    /// Its last journey.
    journey: Option<Arc<J>>,
}

/// A journey, as far as it matters for where a VM is.
pub trait Travel {
    /// Whether it is over.
    fn has_ended(&self) -> bool;
    /// Where it leads, in words that continue "is on its way ".
    fn way(&self) -> String;
}

/// All names.
#[derive(Debug)]
pub struct Registry<T, J> {
    places: BTreeMap<String, Whereabouts<T, J>>,
    /// The daemon is going down: nothing is made any more.
    ending: bool,
}

impl<T, J> Default for Registry<T, J> {
    fn default() -> Self {
        Self { places: BTreeMap::new(), ending: false }
    }
}

fn away_error(name: &str, away: &Away) -> HostError {
    HostError::Away { name: name.to_owned(), at: away.at.clone() }
}

impl<T, J: Travel> Registry<T, J> {
    /// A VM.
    ///
    /// # Errors
    /// When none of this name is here, with where it is.
    pub fn find(&self, name: &str) -> Result<Arc<T>, HostError> {
        match self.places.get(name) {
            Some(Whereabouts::Here(here)) => Ok(Arc::clone(&here.vm)),
            Some(Whereabouts::Away(away) | Whereabouts::Making { away: Some(away), .. }) => {
                Err(away_error(name, away))
            }
            Some(Whereabouts::Restarting { .. }) => Err(HostError::NotNow {
                name: name.to_owned(),
                state: "is being started".into(),
                hint: "wait until it has started".into(),
            }),
            Some(Whereabouts::Making { away: None, .. }) | None => Err(HostError::Unknown(name.to_owned())),
        }
    }

    /// Keeps a name for a VM that is made under it. `comes_home`: one that is listed as away may.
    ///
    /// # Errors
    /// When the name is taken, or the daemon is going down.
    pub fn reserve(&mut self, name: &str, comes_home: bool, claims: Vec<Claim>) -> Result<(), HostError> {
        self.may_reserve(name, comes_home)?;
        let away = match self.places.remove(name) {
            Some(Whereabouts::Away(away)) => Some(away),
            _ => None,
        };
        self.places.insert(name.to_owned(), Whereabouts::Making { claims, away });
        Ok(())
    }

    /// Whether [`Registry::reserve`] would keep it.
    ///
    /// # Errors
    /// As there.
    pub fn may_reserve(&self, name: &str, comes_home: bool) -> Result<(), HostError> {
        match self.places.get(name) {
            _ if self.ending => Err(HostError::Ending),
            None => Ok(()),
            Some(Whereabouts::Away(_)) if comes_home => Ok(()),
            Some(Whereabouts::Away(away)) => Err(away_error(name, away)),
            Some(_) => Err(HostError::Exists(name.to_owned())),
        }
    }

    /// Keeps the place of a VM that has stopped while it is made again.
    ///
    /// # Errors
    /// When it is not listed any more, or is about not to be, or the daemon is going down.
    pub fn restart(
        &mut self,
        name: &str,
        vm: &Arc<T>,
        view: VmView,
        claims: Vec<Claim>,
    ) -> Result<(), HostError> {
        if self.ending {
            return Err(HostError::Ending);
        }
        match self.here(name, vm) {
            Some(Here { bond: Bond::Settled, .. }) => {}
            Some(Here { bond: Bond::Doubtful { doubt, .. }, .. }) => {
                return Err(HostError::NotNow {
                    name: name.to_owned(),
                    state: format!("may run at {}", doubt.at),
                    hint: "look there; remove it here when it runs there".into(),
                });
            }
            _ => return Err(HostError::Unknown(name.to_owned())),
        }
        let before = Arc::clone(vm);
        self.places.insert(name.to_owned(), Whereabouts::Restarting { claims, before, view: Box::new(view) });
        Ok(())
    }

    /// Lists what was made under a name that was kept for it. `arrives`: it does not run here yet.
    ///
    /// # Errors
    /// With it, when the daemon is going down.
    pub fn made(&mut self, name: &str, vm: Arc<T>, arrives: bool) -> Result<(), Arc<T>> {
        let place = self.places.remove(name);
        if self.ending {
            return Err(vm);
        }
        let away = match place {
            Some(Whereabouts::Making { away, .. }) => away,
            _ => None,
        };
        let bond = if arrives { Bond::Arriving { away } } else { Bond::Settled };
        self.places.insert(name.to_owned(), Whereabouts::Here(Here { vm, bond, journey: None }));
        Ok(())
    }

    /// What was to be made under a name was not: what was there is there again. Says whether that is a VM.
    pub fn not_made(&mut self, name: &str) -> bool {
        match self.places.remove(name) {
            Some(Whereabouts::Restarting { before: vm, .. }) => {
                let here = Here { vm, bond: Bond::Settled, journey: None };
                self.places.insert(name.to_owned(), Whereabouts::Here(here));
                true
            }
            Some(Whereabouts::Making { away: Some(away), .. }) => {
                self.places.insert(name.to_owned(), Whereabouts::Away(away));
                false
            }
            Some(Whereabouts::Making { away: None, .. }) | None => false,
            Some(other) => {
                self.places.insert(name.to_owned(), other);
                true
            }
        }
    }

    fn here(&self, name: &str, vm: &Arc<T>) -> Option<&Here<T, J>> {
        match self.places.get(name) {
            Some(Whereabouts::Here(here)) if Arc::ptr_eq(&here.vm, vm) => Some(here),
            _ => None,
        }
    }

    fn here_mut(&mut self, name: &str, vm: &Arc<T>) -> Option<&mut Here<T, J>> {
        match self.places.get_mut(name) {
            Some(Whereabouts::Here(here)) if Arc::ptr_eq(&here.vm, vm) => Some(here),
            _ => None,
        }
    }

    /// Whether this very VM stands under its name.
    pub fn is_here(&self, name: &str, vm: &Arc<T>) -> bool {
        self.here(name, vm).is_some()
    }

    /// Sends a VM on a journey.
    ///
    /// # Errors
    /// When it is on one already, or is not here any more.
    pub fn set_out(&mut self, name: &str, vm: &Arc<T>, journey: &Arc<J>) -> Result<(), HostError> {
        let here = self.here_mut(name, vm).ok_or_else(|| HostError::Unknown(name.to_owned()))?;
        if let Some(other) = here.journey.as_ref().filter(|journey| !journey.has_ended()) {
            return Err(HostError::Travelling { name: name.to_owned(), way: other.way() });
        }
        if let Bond::Leaving { .. } = here.bond {
            return Err(HostError::Unknown(name.to_owned()));
        }
        here.journey = Some(Arc::clone(journey));
        Ok(())
    }

    /// A VM's last journey, whether it is over or not.
    pub fn last_journey(&self, name: &str) -> Option<Arc<J>> {
        match self.places.get(name) {
            Some(Whereabouts::Here(here)) => here.journey.clone(),
            _ => None,
        }
    }

    /// A VM's journey, while it is on one.
    pub fn journey(&self, name: &str) -> Option<Arc<J>> {
        self.last_journey(name).filter(|journey| !journey.has_ended())
    }

    /// A VM that came runs here.
    pub fn arrived(&mut self, name: &str, vm: &Arc<T>) {
        if let Some(here) = self.here_mut(name, vm)
            && let Bond::Arriving { .. } = here.bond
        {
            here.bond = Bond::Settled;
        }
    }

    /// Whether a VM has not come to run here.
    pub fn never_arrived(&self, name: &str, vm: &Arc<T>) -> bool {
        match self.here(name, vm).map(|here| &here.bond) {
            Some(Bond::Leaving { was }) => matches!(**was, Bond::Arriving { .. }),
            bond => matches!(bond, Some(Bond::Arriving { .. })),
        }
    }

    /// A VM is handed over to another host; `kept`: its network's way out stays here.
    pub fn handed_over(&mut self, name: &str, vm: &Arc<T>, kept: bool) {
        if let Some(here) = self.here_mut(name, vm)
            && let Bond::Settled = here.bond
        {
            here.bond = Bond::HandedOver { kept };
        }
    }

    /// It is not known whether a VM runs on another host.
    pub fn in_doubt(&mut self, name: &str, vm: &Arc<T>, doubt: Doubt) {
        let Some(here) = self.here_mut(name, vm) else { return };
        let kept = match here.bond {
            Bond::Settled => false,
            Bond::HandedOver { kept } | Bond::Doubtful { kept, .. } => kept,
            Bond::Arriving { .. } | Bond::Leaving { .. } => return,
        };
        here.bond = Bond::Doubtful { doubt, kept };
    }

    /// A VM is here after all.
    pub fn stayed(&mut self, name: &str, vm: &Arc<T>) {
        if let Some(here) = self.here_mut(name, vm)
            && let Bond::HandedOver { .. } | Bond::Doubtful { .. } = here.bond
        {
            here.bond = Bond::Settled;
        }
    }

    /// Where a VM may run, when its last journey ended unclear and its user has not decided.
    pub fn doubt(&self, name: &str) -> Option<Doubt> {
        match self.places.get(name) {
            Some(Whereabouts::Here(Here { bond: Bond::Doubtful { doubt, .. }, .. })) => Some(doubt.clone()),
            _ => None,
        }
    }

    /// Whether the network's way out of a VM that was handed over is here.
    pub fn is_kept(&self, name: &str, vm: &Arc<T>) -> bool {
        matches!(
            self.here(name, vm).map(|here| &here.bond),
            Some(Bond::HandedOver { kept: true } | Bond::Doubtful { kept: true, .. })
        )
    }

    /// A VM is going to be ended and taken off the list. Says whether it is here at all.
    pub fn leave(&mut self, name: &str, vm: &Arc<T>) -> bool {
        let Some(here) = self.here_mut(name, vm) else { return false };
        if !matches!(here.bond, Bond::Leaving { .. }) {
            let was = Box::new(std::mem::replace(&mut here.bond, Bond::Settled));
            here.bond = Bond::Leaving { was };
        }
        true
    }

    /// A VM has been ended: it is off the list, or listed as `away`. One that did not come home is where it was.
    pub fn left(&mut self, name: &str, vm: &Arc<T>, away: Option<Away>) {
        if !self.is_here(name, vm) {
            return;
        }
        let before = match self.places.remove(name) {
            Some(Whereabouts::Here(Here { bond: Bond::Leaving { was }, .. })) => match *was {
                Bond::Arriving { away } => away,
                _ => None,
            },
            _ => None,
        };
        if let Some(away) = away.or(before) {
            self.places.insert(name.to_owned(), Whereabouts::Away(away));
        }
    }

    /// A VM that was away is no more, or its user does not want to hear of it.
    pub fn forget(&mut self, name: &str) {
        match self.places.get_mut(name) {
            Some(Whereabouts::Away(_)) => drop(self.places.remove(name)),
            Some(Whereabouts::Making { away, .. }) => *away = None,
            Some(Whereabouts::Here(Here { bond: Bond::Arriving { away }, .. })) => *away = None,
            _ => {}
        }
    }

    /// The VMs that are here.
    pub fn all(&self) -> impl Iterator<Item = &Arc<T>> {
        self.places.values().filter_map(|place| match place {
            Whereabouts::Here(here) => Some(&here.vm),
            _ => None,
        })
    }

    /// The journeys of VMs that are here.
    pub fn journeys(&self) -> Vec<Arc<J>> {
        let of = |place: &Whereabouts<T, J>| match place {
            Whereabouts::Here(here) => here.journey.clone().filter(|journey| !journey.has_ended()),
            _ => None,
        };
        self.places.values().filter_map(of).collect()
    }

    /// How those are shown that are not here, or not at present.
    pub fn others(&self) -> impl Iterator<Item = &VmView> {
        self.places.values().filter_map(|place| match place {
            Whereabouts::Away(away) | Whereabouts::Making { away: Some(away), .. } => Some(&*away.view),
            Whereabouts::Restarting { view, .. } => Some(view),
            Whereabouts::Making { away: None, .. } | Whereabouts::Here(_) => None,
        })
    }

    /// Disks of VMs that are being made, with the VMs' names.
    pub fn claims(&self) -> impl Iterator<Item = (&str, &Claim)> {
        self.places.iter().flat_map(|(name, place)| {
            let claims = match place {
                Whereabouts::Making { claims, .. } | Whereabouts::Restarting { claims, .. } => {
                    claims.as_slice()
                }
                Whereabouts::Here(_) | Whereabouts::Away(_) => &[],
            };
            claims.iter().map(move |claim| (name.as_str(), claim))
        })
    }

    /// Names that are taken here, by VMs that are made too.
    pub fn len(&self) -> usize {
        self.places.values().filter(|place| !matches!(place, Whereabouts::Away(_))).count()
    }

    /// Whether nothing is listed at all.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// From now on nothing is made.
    pub fn end(&mut self) {
        self.ending = true;
    }

    /// Whether the daemon is going down.
    pub fn is_ending(&self) -> bool {
        self.ending
    }

    /// Nothing is listed any more.
    pub fn clear(&mut self) {
        self.places.clear();
    }
}

#[cfg(test)]
mod tests;
