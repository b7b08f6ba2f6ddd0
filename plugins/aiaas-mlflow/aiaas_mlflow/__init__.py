"""MLflow scoring servers behind aiaas-sdk: `mlflow+https://` addresses, and others that answer `/invocations`."""
