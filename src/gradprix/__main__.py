"""`python -m gradprix`."""

import sys

if __name__ == "__main__":
    # `python -m` looks for modules in the working directory first, where a user's torch.py or random.py may be.
    if not sys.flags.safe_path:
        sys.path.append(sys.path.pop(0))
    from .cli import main

    main()
