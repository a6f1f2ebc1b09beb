"""What a chat costs through the daemon, against the same CLI without it: `make bench`.

Every figure is measured side by side in one run, by turns (A B C A B C ...), so that a busy machine is busy for all of
them. A group is a module with `measure(size)`; what it finds are the rows of `figures`, what is wanted of them stands
in `targets`. The clients here are as lean as can be: what they cost would be counted as the daemon's.
"""
