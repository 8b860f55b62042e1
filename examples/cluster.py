"""The same race on a Ray cluster, here one on this machine.

python examples/cluster.py
"""

import gradprix as gp

if __name__ == "__main__":
    engine = gp.engines.Ray()  # Ray("10.0.0.1:6379") for a cluster that is running
    task = gp.tasks.digits.change(epochs=6)
    few = {"trials": 13, "seeds": 8, "out": "runs/cluster"}
    result = gp.race(task, "adamw,nesterov", engine=engine, **few)
    print(result)
    again = gp.race(task, "adamw,nesterov", **few)  # without Ray
    print(f"{again.reused} runs reused; same answer: {again.text == result.text}")
