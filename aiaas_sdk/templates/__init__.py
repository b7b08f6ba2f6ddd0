"""What `aiaas new-backend` writes: texts with $words. They end in .txt, since no tool should take them for code."""
