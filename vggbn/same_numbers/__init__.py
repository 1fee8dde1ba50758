"""Whether two commits compute the same numbers, as `python -m vggbn same-numbers` asks.

probe      what runs inside a source tree: runs whose programs are traced and made up
trees      a commit's source tree in a folder, and what a probe answers there
published  the result lines of results/, and what is to be asked of the code that made them
compare    two answers: equal, or what differs first
identities what today's code calls their numbers
table      results/same_numbers.json
"""
