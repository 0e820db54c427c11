"""Networks as matrices, matrices as blocks on crossbars."""
