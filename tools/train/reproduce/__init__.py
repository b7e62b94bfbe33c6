"""The main experiments of the papers, each as a grid of runs that ends in the paper's tables beside ours."""
