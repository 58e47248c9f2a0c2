"""Dense indexes: exact in memory, FAISS segments on disk, exact in torch. Behind `retriever_service.dense_index`."""
