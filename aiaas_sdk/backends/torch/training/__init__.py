"""Training with PyTorch: `running.train` does one `fit`, from the parent's bundle to the new version.

running       the whole of a run: copy, loop, new version
loop          epochs, steps, events
supply        rows as batches, in the order of the seed
losses, metrics, optimizers, schedules    by their names
checkpoints   what a run needs to go on, on disk
randomness    the run's own random numbers
lineage       what the new version says of where it came from

Of several processes:

launching, processes, channel     the run's side: starts them, hears them, ends with them
rank, travelling                  a process's side, and what it is handed
ranks, normalizing, sharding      what the loop asks of the others
"""
