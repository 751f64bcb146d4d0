"""Fine-tuning and its kin: what is loaded from the source, and what of it trains."""

from jaxtl.methods.transfer.chains import gradual_unfreezing, linear_probe_then_fine_tune
from jaxtl.methods.transfer.closed_form import logistic, ridge
from jaxtl.methods.transfer.fine_tuning import full, grouped, partial, probe, supervised_update

__all__ = [
    "full",
    "gradual_unfreezing",
    "grouped",
    "linear_probe_then_fine_tune",
    "logistic",
    "partial",
    "probe",
    "ridge",
    "supervised_update",
]
