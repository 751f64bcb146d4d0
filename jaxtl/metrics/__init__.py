"""What is measured on a dataset: sums over examples on the device, metrics on the host."""

from jaxtl.metrics.binary import multilabel
from jaxtl.metrics.confusion import classification, per_class
from jaxtl.metrics.derived import Derived
from jaxtl.metrics.few_shot import few_shot, few_shot_regression
from jaxtl.metrics.open_set import open_set
from jaxtl.metrics.residuals import regression
