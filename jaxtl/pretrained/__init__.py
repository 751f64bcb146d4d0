"""Published weights: read without the library that wrote them, strictly, and written back."""

from jaxtl.pretrained.adapters.peft import Peft, PeftWeights, peft
from jaxtl.pretrained.adapters.write_peft import save_peft
from jaxtl.pretrained.features import features
from jaxtl.pretrained.locations import (
    EFFICIENTNET_LITE0,
    MINILM_L6,
    MINILM_L6_TOKENIZER,
    LazyFile,
    fetch,
)
from jaxtl.pretrained.names.bert import BERT
from jaxtl.pretrained.names.efficientnet_lite import efficientnet_lite
from jaxtl.pretrained.names.resnet import RESNET
from jaxtl.pretrained.names.scheme import CONV, DENSE, SAME, Entry, Layout, Scheme
from jaxtl.pretrained.names.vit import VIT
from jaxtl.pretrained.weights import FileWeights, load, weights
