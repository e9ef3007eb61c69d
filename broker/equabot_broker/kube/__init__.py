"""The Kubernetes API, knowing nothing of brokers. The one room that loads the Kubernetes client, and only once it is needed."""
