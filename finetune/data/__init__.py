"""Records: where they come from, what is refused, how they are split, and how a chat template makes token ids of them."""
