"""Training: one loop and one step for every method.

Words of this room:

    replicas   trainings of one stage in one program: its seeds, for each point of a sweep; the
               leading axis of all that is trained
    groups     {optimizer: the parameters that it trains}; what none trains is frozen
    rule       what makes one gradient of several: an update's `weigh`, `combine` or `aggregate`
    dispatch   one call of the compiled program, which takes several steps of all replicas
    feed       the examples that a dispatch gathers from; a page of them where they are not on the
               device
    block      seeds that were trained together, in a folder of their own
    identity   all that a stage's result depends on, seed by seed, as JSON
    prefix     the first blocks of a model whose outputs no step changes
"""
