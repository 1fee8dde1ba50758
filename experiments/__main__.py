"""The experiments, each with what it asks: `python -m experiments`."""

from vggbn.experiment.find import questions

if __name__ == "__main__":
    asked = questions()
    print("usage: python -m experiments.NAME ...    (--help says more)\n")
    for name, question in asked.items():
        print(f"  {name:{max(map(len, asked))}}  {question}")
