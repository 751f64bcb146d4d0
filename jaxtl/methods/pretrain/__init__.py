"""Pretraining without labels: features learned from what examples look like.

For a stage whose domains are `unlabelled(dataset)`, without a head; several domains are pooled. The
heads wait, and the next stage of the arm trains them, on frozen features (`transfer.probe`) or with
them. Networks that a method brings along (decoder, projector, predictor) train with its `tx` and
stay behind. All examples count alike.

Two views of an example are made by `augment`, (rng, inputs [n, ...] float) -> inputs, twice with
other random numbers. What it leaves alone is what the features may tell apart, so it decides more
than the method does. Both views pass the network together: BatchNorm normalises over all of them.
The methods of two views log `spread`, which is near 0 where all projections are one vector; the
report says the effective rank of the features.
"""

from jaxtl.methods.pretrain.autoencoder import autoencoder, dense_decoder
from jaxtl.methods.pretrain.barlow_twins import barlow_twins
from jaxtl.methods.pretrain.byol import byol
from jaxtl.methods.pretrain.deep_cluster import deep_cluster
from jaxtl.methods.pretrain.masked_autoencoder import masked_autoencoder
from jaxtl.methods.pretrain.rotation import rotation
from jaxtl.methods.pretrain.scarf import scarf, swap_values
from jaxtl.methods.pretrain.simclr import simclr
from jaxtl.methods.pretrain.simsiam import simsiam
from jaxtl.methods.pretrain.stacked import block_autoencoder, stacked_autoencoders
from jaxtl.methods.pretrain.vicreg import vicreg
